"""Programs that use the stand-in for libboinc, and the host's end of their channel."""
