"""The libvirt driver: machines as transient domains of a libvirt daemon on this host.

It works with whatever a local libvirt URI leads to. Proved is QEMU of a session's daemon.
"""
