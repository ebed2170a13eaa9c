"""A job's data in its BOINC slot: its files, streams and archives, and its progress."""
