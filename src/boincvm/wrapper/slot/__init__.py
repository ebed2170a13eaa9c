"""What a job has in its BOINC slot: its files, streams and archives, and how far it has come."""
