"""A driver without a hypervisor: its machines are objects of this process."""
