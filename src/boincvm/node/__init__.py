"""A guest's end of the bus: it announces itself, and carries out commands and file transfers."""
