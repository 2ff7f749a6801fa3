"""Health: endpoints are probed, and judged by what workers report."""
