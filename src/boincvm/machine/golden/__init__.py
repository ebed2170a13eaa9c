"""Golden snapshots: booted machines that are kept so that others can start as copies of them."""
