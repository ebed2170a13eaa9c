"""Golden snapshots: machines that have booted, kept so that others start as copies of them."""
