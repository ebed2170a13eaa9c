"""The driver for QEMU, spoken to by QMP; accelerated by KVM where that works."""
