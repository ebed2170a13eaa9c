"""A guest's end of the bus: it announces itself, and runs and sends what it is asked for."""
