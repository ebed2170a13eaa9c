"""Where tests on Windows find the packed QEMU for their slots."""

PACKED_QEMU = "BOINCVM_TEST_QEMU"
"""The variable that names the file."""
