"""The process that keeps one machine: it outlives the controller, and is its guest on the bus."""
