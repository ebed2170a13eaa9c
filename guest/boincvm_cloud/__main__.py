"""The first process: read the seed, set up the network, run commands, reap what ends."""

from __future__ import annotations

import os
import signal
import sys
import time

from boincvm_cloud import context
from boincvm_cloud.disc import DiscError
from boincvm_cloud.seed import Seed, SeedError, find_disc, read_seed

_BUSYBOX = "/dev/boincvm/busybox"
_LEASE = "/dev/boincvm/lease"
_CARD = "eth0"
_LEASE_ATTEMPTS, _LEASE_SECONDS = 5, 3
_GRACE = 10.0
"""Seconds that programs have to end before the machine is powered off."""
_POWER_OFF, _REBOOT = signal.SIGUSR2, signal.SIGTERM
"""What busybox's `poweroff` and `reboot` send to the first process."""
_SIGNALS = frozenset((signal.SIGCHLD, _POWER_OFF, _REBOOT))


def main() -> None:
    """Be the machine's first process; does not return."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    seed = _seed()
    if seed is None and context.instance() is None:
        _report("this machine was never set up, and is powered off")
        _end("poweroff")
    commands = _applied(seed)
    _connect()
    for command in [*([script] for script in context.scripts_of_each_boot()), *commands]:
        code = _run(command)
        if code:
            _report(f"{command[0]} has ended with {code}")
    if commands and seed is not None and seed.is_powered_off:
        _end("poweroff")
    _report("the machine is set up")
    while True:
        _reap(signal.sigwaitinfo(_SIGNALS).si_signo)


def _report(text: str) -> None:
    sys.stdout.write(f"boincvm: {text}\n")
    sys.stdout.flush()


def _seed() -> Seed | None:
    found = find_disc()
    if found is None:
        _report(
            "no disk with a seed was found: attach one, with the label cidata, as a virtio or NVMe"
            " disk (boincvm image seed makes it)"
        )
        return None
    name, disc = found
    try:
        seed = read_seed(disc, _report)
    except (SeedError, DiscError, OSError) as error:
        _report(f"the seed on /dev/{name} is refused: {error}")
        return None
    _report(f"the seed on /dev/{name} is for {seed.instance}")
    return seed


def _applied(seed: Seed | None) -> list[list[str]]:
    try:
        if seed is None:
            context.restore_host_name()
            return []
        return context.apply(seed)
    except OSError as error:
        _report(f"the machine cannot be made what it is: {error}")
        return []


def _connect() -> None:
    """Ask for an address, and leave the program running that renews it."""
    if os.path.exists(f"/sys/class/net/{_CARD}"):
        options = ("-i", _CARD, "-s", _LEASE, "-b")
        limits = ("-t", str(_LEASE_ATTEMPTS), "-T", str(_LEASE_SECONDS))
        _run([_BUSYBOX, "udhcpc", *options, *limits])


def _run(command: list[str]) -> int:
    """Run a command, with the console as its output; return its exit code, or 128 and a signal."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0)],
            setpgroup=0,
            setsigmask=(),
        )
    except OSError as error:
        _report(f"{command[0]} cannot be started: {error}")
        return 0
    finally:
        os.close(null)
    while True:
        ended = _reap(signal.sigwaitinfo(_SIGNALS).si_signo)
        if pid in ended:
            code = os.waitstatus_to_exitcode(ended[pid])
            return code if code >= 0 else 128 - code


def _reap(number: int) -> dict[int, int]:
    """Handle a signal; return the processes that have ended, with their status."""
    if number != signal.SIGCHLD:
        _end("poweroff" if number == _POWER_OFF else "reboot")
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = status


def _end(how: str) -> None:
    """End all programs, write all buffers to the disk, and end the machine; does not return."""
    for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        if _has_children():
            os.kill(-1, number)
        end = time.monotonic() + seconds
        while _has_children() and (left := end - time.monotonic()) > 0:
            signal.sigtimedwait((signal.SIGCHLD,), left)
    os.sync()
    for command in (("mount", "-o", "remount,ro", "/"), (how, "-f")):
        pid = os.posix_spawn(_BUSYBOX, [_BUSYBOX, *command], os.environ)
        os.waitpid(pid, 0)
    while True:
        signal.pause()


def _has_children() -> bool:
    """Reap all that have ended; tell whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    main()
