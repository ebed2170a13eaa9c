"""The BOINC project's side: what a project makes of boincvm for its volunteers."""
