"""`boincvm run`: a job in one machine, with no BOINC."""
