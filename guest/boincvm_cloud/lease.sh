#!/dev/boincvm/busybox sh
# Called by busybox's udhcpc with the name of an event, and a lease in variables.
busybox=/dev/boincvm/busybox
case $1 in
deconfig)
    $busybox ifconfig "$interface" 0.0.0.0 up
    ;;
bound | renew)
    $busybox ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}" up
    while $busybox route del default dev "$interface" 2>/dev/null; do :; done
    for gateway in $router; do
        $busybox route add default gw "$gateway" dev "$interface"
        break
    done
    for server in $dns; do
        echo "nameserver $server"
    done >/etc/resolv.conf
    ;;
esac
