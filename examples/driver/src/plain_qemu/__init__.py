"""A driver for boincvm: QEMU with nothing but a kernel, a disk and a port."""
