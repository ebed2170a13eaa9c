"""`boincvm-wrapper`: runs a job in a BOINC slot."""
