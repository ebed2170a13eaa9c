"""The tasks of a job: their order, and how each is started, watched and ended."""
