"""STOMP 1.2: the codec that host and guest share."""
