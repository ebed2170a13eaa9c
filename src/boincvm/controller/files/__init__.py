"""Copy files to and from guests over the bus."""
