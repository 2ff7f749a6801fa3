"""What makes the files that are handed out: the one file, the Debian package, the man pages."""
