"""What a host runs the gateway with: units, packages, and the makers of both."""
