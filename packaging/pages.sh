#!/bin/sh
# Puts into DIRECTORY the documentation that the Debian package has.
#   pages.sh DIRECTORY
#
# Pages link to files of the source: those lie here as they do there, so that the links hold.
set -eu
directory=$1
mkdir -p "$directory/examples" "$directory/packaging"
cp LICENSE "$directory/copyright"
cp -r README.md SPECIFICATION.md docs "$directory/"
cp -r examples/boinc-ecm examples/driver "$directory/examples/"
find "$directory" -name __pycache__ -prune -exec rm -rf {} +
cp packaging/*.service packaging/boincvm.logrotate "$directory/packaging/"
