"""The names of an image's files, in a module of their own so that a run imports little."""

MANIFEST = "manifest.json"
KERNEL = "kernel"
INITRD = "initrd"
ROOT = "root.qcow2"
FILES = (MANIFEST, INITRD, KERNEL, ROOT)
ROOT_PART = "root.part"
"""In place of ROOT, the blocks of it that have been read so far."""
ON_DEMAND = "on-demand"
"""Where the other blocks are."""
