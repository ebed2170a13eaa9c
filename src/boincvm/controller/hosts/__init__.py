"""The controller's broker, and the other hosts that may use it."""
