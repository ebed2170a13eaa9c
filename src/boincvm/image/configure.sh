#!/bin/sh
# Runs in the guest as root: the packages' own scripts configure them, as dpkg would have it.

set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
export LC_ALL=C.UTF-8 TERM=dumb PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0 PYTHONHASHSEED=0
export PYTHONDONTWRITEBYTECODE=1
info=/var/lib/dpkg/info

date -s "@$((SOURCE_DATE_EPOCH + 86400))" >/dev/null
busybox mount -t tmpfs tmpfs /tmp
# Byte code was made on the host, where that takes seconds; here it would take minutes.
printf '#!/bin/sh\nexit 0\n' >/tmp/nothing
: >/tmp/empty.py
chmod 755 /tmp/nothing
# The certificates are in their places already (certificates.py).
hidden=
hide() { # FILE STAND-IN: until all is configured
    [ -e "$1" ] || return 0
    busybox mount -o bind "$2" "$1"
    hidden="$hidden $1"
}
for program in /usr/bin/py3compile /usr/bin/pycompile /usr/sbin/update-ca-certificates; do
    hide "$program" /tmp/nothing
done
for module in /usr/lib/python3*/py_compile.py; do
    hide "$module" /tmp/empty.py
done
# The list of certificates, too: the package's script would compare it with its own line by line, in
# a thousand processes. It writes a new one at once, as on any new Debian.
rm -f /etc/ca-certificates.conf
# No service may start: there is none in an image.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

# Manual pages are left out, but scripts lead links to their directories.
for number in 1 2 3 4 5 6 7 8; do
    mkdir -p "/usr/share/man/man$number"
done

# What dpkg would have run before it unpacked (deb-preinst(5)).
version=$(dpkg-query -W -f '${Version}' dpkg)
architecture=$(dpkg --print-architecture)
for script in "$info"/*.preinst; do
    [ -e "$script" ] || continue
    name=${script##*/}
    name=${name%.preinst}
    DPKG_MAINTSCRIPT_PACKAGE=${name%:*} DPKG_MAINTSCRIPT_NAME=preinst \
        DPKG_MAINTSCRIPT_ARCH="$architecture" DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 \
        DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_RUNNING_VERSION="$version" \
        "$script" install </dev/null || {
        echo "dpkg: error processing package ${name%:*} (preinst)"
        exit 1
    }
done
dpkg --force-unsafe-io --force-confold --configure --pending
dpkg --force-unsafe-io --triggers-only --pending
ldconfig
rm -f /usr/sbin/policy-rc.d
for file in $hidden; do # or the stand-ins would come into the image
    busybox umount "$file"
done
busybox umount -l /tmp
