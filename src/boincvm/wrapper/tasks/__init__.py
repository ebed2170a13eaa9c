"""The tasks of a job: in which order they run, and how each is started, watched and ended."""
