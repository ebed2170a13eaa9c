"""One machine engine: a machine begins, is watched, paused, put on disk, and ends."""
