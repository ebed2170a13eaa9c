"""The machine engine: starts, watches, pauses, saves and ends a virtual machine."""
