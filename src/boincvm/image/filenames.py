"""The names of the files in an image's directory; a module of its own, so that a run imports
little."""

MANIFEST = "manifest.json"
KERNEL = "kernel"
INITRD = "initrd"
ROOT = "root.qcow2"
FILES = (MANIFEST, INITRD, KERNEL, ROOT)
