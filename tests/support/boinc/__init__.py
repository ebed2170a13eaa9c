"""A real BOINC client for tests, and tasks for it."""
