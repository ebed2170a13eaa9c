"""The driver for User-mode Linux: a Linux kernel that is a program of the host.

It needs neither hardware virtualization nor emulation nor root, so programs run at the host's own
speed where there is no KVM. Its machines run in a sandbox, which is the boundary against a hostile
guest (docs/drivers.md).
"""
