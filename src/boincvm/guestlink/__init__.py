"""The link from host to guest: commands, files and heart-beats over any byte channel."""
