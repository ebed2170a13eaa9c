"""A job, run to its end."""
