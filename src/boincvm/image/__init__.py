"""Base images: build, store, verify."""
