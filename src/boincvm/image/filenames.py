"""The names of an image's files, in a module of their own so that a run imports little."""

MANIFEST = "manifest.json"
KERNEL = "kernel"
INITRD = "initrd"
ROOT = "root.qcow2"
FILES = (MANIFEST, INITRD, KERNEL, ROOT)
