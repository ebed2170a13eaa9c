"""`boincvm run`: runs a job in one machine, without BOINC."""
