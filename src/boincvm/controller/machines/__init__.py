"""The machines of the controller's own host."""
