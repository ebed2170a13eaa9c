"""Run any Linux program inside a virtual machine: as a BOINC task, on its own, or on a fleet."""

__version__ = "0.1.0"
