"""The data plane: runs in each worker process."""
