"""The files of an image's directory. Apart from what reads them, so that a run imports no more."""

MANIFEST = "manifest.json"
KERNEL = "kernel"
INITRD = "initrd"
ROOT = "root.qcow2"
FILES = (MANIFEST, INITRD, KERNEL, ROOT)
