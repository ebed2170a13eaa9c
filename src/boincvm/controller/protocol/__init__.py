"""The messages between controller and nodes on the bus."""
