#!/bin/sh
# enter.sh ROOT PROGRAM ARGUMENT...: run a program of VirtualBox in its root, in a mount namespace
# that is ours already. All that is not the root's own system is seen there at the host's paths,
# also directories that the host did not have yet when the root was made.
root=$1
program=$2
shift 2
for place in /*; do
    case $place in /bin | /boot | /etc | /lib* | /lost+found | /sbin | /usr) continue ;; esac
    if [ -L "$place" ] || [ ! -d "$place" ]; then continue; fi
    mkdir -p "$root$place" && mount --rbind "$place" "$root$place" || exit 125
done
exec chroot "$root" "$program" "$@"
