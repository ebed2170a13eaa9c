"""The shim: it runs one machine, outlives the controller, and is the machine's guest on the bus."""
