"""File transfer by the Chirp protocol of Notre Dame's coop-computing-tools."""
