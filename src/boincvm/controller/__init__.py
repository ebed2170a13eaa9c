"""Many machines at once: who is there, and whom a request is for."""
