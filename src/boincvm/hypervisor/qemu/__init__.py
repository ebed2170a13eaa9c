"""The driver for QEMU, controlled by QMP and accelerated by KVM where that works."""
