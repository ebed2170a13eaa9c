"""The shim: the process that runs one machine, outlives the controller, and is its guest on the
bus."""
