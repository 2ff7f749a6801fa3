"""Worker processes: forked, watched, replaced, and given their sockets."""
