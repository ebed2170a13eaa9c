"""Files to and from guests, over the bus."""
