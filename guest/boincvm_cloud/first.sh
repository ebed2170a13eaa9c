#!/bin/busybox sh
# The first program of a disk that was exported with --cloud (`rdinit=/cloud`): what is needed later
# must outlive the initial RAM disk. Its init script copies /devices to /dev.
/bin/busybox cp -a /modules /bin/busybox /devices/boincvm/ || exit 1
exec /bin/busybox sh /init
