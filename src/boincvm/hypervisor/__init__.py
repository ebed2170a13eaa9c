"""Hypervisor drivers: their contract, the registry, and the drivers themselves."""
