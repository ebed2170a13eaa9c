#!/dev/boincvm/busybox sh
# Started as the guest's first process when the root disk is mounted: load all drivers, hand over.
cd /dev/boincvm || exit 1
for module in modules/*.ko modules/network/*.ko; do
    # Those that the init script has loaded are there already.
    [ ! -e "$module" ] || ./busybox insmod "$module" 2>/dev/null
done
./busybox rm -rf modules
python=/usr/lib/boincvm/bin/python3 # in an image of a container
[ -x "$python" ] || python=/usr/bin/python3.11
exec "$python" -I -S -B /dev/boincvm/cloud.pyz
