"""The machines of the controller's host."""
