"""Sessions: from an accepted client through the dial and the relay to the end."""
