"""What controller and nodes say to each other on the bus."""
