"""What is to be done: one model, one reader per file format."""
