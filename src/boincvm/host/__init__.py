"""What differs by operating system, behind one face: nothing above names a system."""
