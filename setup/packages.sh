#!/bin/sh
# Installs the Debian packages that are missing here; asks for root only if there are any.
#   packages.sh PACKAGE...
set -eu
missing=
for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing$missing" >&2
root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "these packages are missing, and there is no sudo here; as root, run:" >&2
        echo "  apt-get install --no-install-recommends$missing" >&2
        exit 1
    }
    root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$root apt-get -q update >/dev/null
# shellcheck disable=SC2086  # a list of names
$root apt-get -q -y install --no-install-recommends $missing >/dev/null
