"""Control many machines at once, on this host and on others."""
