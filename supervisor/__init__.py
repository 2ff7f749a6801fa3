"""The control plane: runs in the master process."""
