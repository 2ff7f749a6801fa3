"""What every part of the master uses of the operating system: log and limits."""
