"""A driver without a hypervisor, whose machines are objects of this process."""
