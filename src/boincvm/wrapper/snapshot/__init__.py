"""Snapshots: a job with its saved machines, as one file that can go to another computer."""
