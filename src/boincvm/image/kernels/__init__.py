"""Small guest kernels of our own, built from Debian's kernel sources."""
