"""A job with its saved machines, as one file that goes to another computer."""
