"""What a job is: one model, and one reader per file format."""
