"""Host to guest: commands, files and presence over any byte channel."""
