#!/bin/sh
# Builds DIRECTORY/boincvm_VERSION_ARCHITECTURE.deb for this host's Debian release.
#   deb.sh PYTHON DIRECTORY     PYTHON has pip, and the minor version of /usr/bin/python3
#
# Python's packages that boincvm needs come along, in an environment of their own, so that no other
# version of them matters: /usr/lib/boincvm is laid out as venv does it. What it can do without, such
# as python3-cryptography and python3-libvirt, is taken from Debian's packages if they are installed.
set -eu
python=$1 directory=$2
umask 022
minor() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
system=$(minor /usr/bin/python3)
if [ "$(minor "$python")" != "$system" ]; then
    echo "deb.sh: $python is not Python $system, as /usr/bin/python3 is" >&2
    exit 1
fi
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/boincvm/__init__.py)
architecture=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
home=$root/usr/lib/boincvm
packages=$home/lib/python$system/site-packages
mkdir -p "$home/bin" "$packages" "$root/usr/bin" "$root/DEBIAN" "$directory"

"$python" -m pip install -q --disable-pip-version-check --no-compile --target "$packages" '.[controller]'
rm -rf "$packages/bin"
printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$home/pyvenv.cfg"
ln -s /usr/bin/python3 "$home/bin/python3"
echo /usr/lib/python3/dist-packages >"$packages/debian.pth"
for command in boincvm:main boincvm-wrapper:boinc_wrapper; do
    name=${command%:*}
    cat >"$home/bin/$name" <<EOF
#!/usr/lib/boincvm/bin/python3 -P
import sys

from boincvm.cli.${command#*:} import main

sys.exit(main())
EOF
    chmod 755 "$home/bin/$name"
    ln -s "../lib/boincvm/bin/$name" "$root/usr/bin/$name"
done

documentation=$root/usr/share/doc/boincvm
mkdir -p "$root/lib/systemd/system"
packaging/pages.sh "$documentation"
cp packaging/*.service "$root/lib/systemd/system/"

cat >"$root/DEBIAN/control" <<EOF
Package: boincvm
Version: $version
Architecture: $architecture
Maintainer: boincvm's developers <boincvm@localhost>
Section: science
Priority: optional
Depends: python3 (>= $system), python3 (<< ${system%.*}.$((${system#*.} + 1))), qemu-system-x86, qemu-utils, util-linux
Recommends: e2fsprogs, lz4, mmdebstrap, python3-cryptography, zstd
Suggests: boinc-client, logrotate, novnc, python3-libvirt
Installed-Size: $(du -sk "$root" | cut -f1)
Description: run any Linux program inside a virtual machine
 As a BOINC task, on its own, or on a fleet of machines. The program is not ported
 and not recompiled; it sees a small Linux of its own and only the files that are
 handed to it.
EOF
dpkg-deb --root-owner-group --build "$root" "$directory/boincvm_${version}_${architecture}.deb"
