"""The libvirt driver: machines as transient domains of a libvirt daemon on this host.

It works with whatever a local libvirt URI leads to. It is proved with QEMU,
by daemons of a session and of a system.
"""
