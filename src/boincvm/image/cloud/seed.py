"""A seed: a disk that tells a machine what it is, as cloud-init's data source NoCloud has it.

The user data is JSON, which is YAML too. So machines of ours, which have no reader of YAML, and
machines of vendors with cloud-init take the same seed.
"""

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from boincvm.bus.broker_address import BrokerAddress
from boincvm.errors import InputFileError, UsageError, host_error
from boincvm.host.files import read_regular
from boincvm.image.cloud.disc import disc_of
from boincvm.image.cloud.guest_program import guest_program

LABEL = "cidata"
MOST_BYTES = 8 << 20
"""Bytes of all files and scripts together. What a machine reads at most, with base64, is twice
that."""
_MOST = 1000
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_INSTANCE = re.compile(r"[\x21-\x7e]{1,256}")
_STATE = "/var/lib/boincvm"
_PROGRAM, _LIBRARY = f"{_STATE}/guest.zip", f"{_STATE}/lib"
_SETTINGS, _AUTHORITY = f"{_STATE}/guest.json", f"{_STATE}/broker.pem"
_EACH_BOOT = "/var/lib/cloud/scripts/per-boot/50-boincvm-guest"
"""cloud-init runs what is there at each boot."""
_GUEST = f"""\
#!/bin/sh
# Starts this machine's guest on the bus of a boincvm controller, and starts it again if it ends.
for python in /usr/bin/python3 /usr/bin/python3.11 /usr/lib/boincvm/bin/python3; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || {{ echo 'boincvm: the guest needs Python 3.11 or later' >&2; exit 1; }}
if [ ! -d {_LIBRARY} ] || [ {_PROGRAM} -nt {_LIBRARY} ]; then
    rm -rf {_LIBRARY} {_LIBRARY}.new
    "$python" -m zipfile -e {_PROGRAM} {_LIBRARY}.new && mv {_LIBRARY}.new {_LIBRARY} || exit 1
    touch {_LIBRARY}
fi
export HOME=/root BOINCVM_HOME={_STATE}/home PYTHONPATH={_LIBRARY}
set -- "$python" -m boincvm.node {_SETTINGS}
if [ -d /run/systemd/system ]; then
    exec systemd-run --quiet --collect --unit=boincvm-guest --property=Restart=always \\
        --property=RestartSec=10 --setenv=HOME="$HOME" --setenv=BOINCVM_HOME="$BOINCVM_HOME" \\
        --setenv=PYTHONPATH="$PYTHONPATH" "$@"
fi
setsid sh -c 'while :; do "$@"; sleep 10; done' guest "$@" &
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """How a machine becomes a guest on a controller's bus."""

    broker: BrokerAddress
    """Its `authority` is a file of this host."""
    id: str = ""
    """The guest's id; empty: the name by which the host was invited."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seed:
    """What a machine is to be."""

    host_name: str = ""
    instance: str = ""
    """Names the machine; empty for a name that no other machine has."""
    files: tuple[tuple[Path, PurePosixPath], ...] = ()
    """Files of this host, and where they are put."""
    commands: tuple[str, ...] = ()
    """For the machine's shell, once, one after the other."""
    is_powered_off: bool = False
    """The machine ends when the commands have."""
    guest: Guest | None = None


def seed_disc(seed: Seed) -> bytes:
    """Return the disk, an ISO 9660 disc. It holds secrets if the seed does.

    Raises UsageError, InputFileError, HostError.
    """
    meta_data, user_data = _meta_data(seed), _user_data(seed)
    return disc_of(LABEL, {"meta-data": meta_data, "user-data": user_data})


def _meta_data(seed: Seed) -> bytes:
    instance = seed.instance or f"boincvm-{secrets.token_hex(8)}"
    if not _INSTANCE.fullmatch(instance):
        raise UsageError(
            f"found the instance id {instance[:80]!a}, expected up to 256 printable characters"
            " of ASCII without spaces"
        )
    table = {"instance-id": instance}
    if seed.host_name:
        if not _HOST_NAME.fullmatch(seed.host_name):
            raise UsageError(
                f"found the host name {seed.host_name[:80]!a}, expected up to 64 of A-Z a-z 0-9 . -"
            )
        table["local-hostname"] = seed.host_name
    return f"{json.dumps(table)}\n".encode()


def _user_data(seed: Seed) -> bytes:
    if len(seed.files) > _MOST or len(seed.commands) > _MOST:
        raise UsageError(f"a seed has at most {_MOST} files and {_MOST} commands")
    if seed.is_powered_off and not seed.commands:
        raise UsageError("a machine without a command has no end after which it is powered off")
    files = [_own_file(source, target) for source, target in seed.files]
    if seed.guest is not None:
        files += _files_of_guest(seed.guest)
    table: dict[str, object] = {}
    if files:
        table["write_files"] = files
    if seed.commands:
        table["runcmd"] = list(seed.commands)
    if seed.is_powered_off:
        table["power_state"] = {"mode": "poweroff"}
    if sum(len(file["content"]) for file in files) > 2 * MOST_BYTES:
        raise UsageError(
            f"the files of a seed have more than {MOST_BYTES >> 20} MiB",
            hint="put them into the image: boincvm image build --file SRC:DST",
        )
    return b"#cloud-config\n" + json.dumps(table, indent=1).encode() + b"\n"


def _file(path: str, content: bytes, permissions: str) -> dict[str, str]:
    text = base64.b64encode(content).decode()
    return {"path": path, "encoding": "b64", "permissions": permissions, "content": text}


def _own_file(source: Path, target: PurePosixPath) -> dict[str, str]:
    path = str(target)
    if not target.is_absolute() or ".." in target.parts or path == "/" or not path.isprintable():
        raise UsageError(
            f"found the file's place {path[:80]!a} in the machine, expected an absolute path"
        )
    content = _content(source)
    executable = source.stat().st_mode & 0o100
    return _file(path, content, "0755" if executable else "0644")


def _content(source: Path) -> bytes:
    try:
        content = read_regular(source, MOST_BYTES + 1)
    except OSError as error:
        raise host_error(f"{str(source)!r} cannot be read", error, InputFileError) from error
    if len(content) > MOST_BYTES:
        raise InputFileError(f"{str(source)!r} is not a file of at most {MOST_BYTES >> 20} MiB")
    return content


def _files_of_guest(guest: Guest) -> list[dict[str, str]]:
    broker = guest.broker
    settings = {
        "login": broker.login,
        "passcode": broker.passcode,
        "host": broker.host,
        "port": broker.port,
        "authority": _AUTHORITY if broker.authority else "",
        "dialect": broker.dialect,
        "id": guest.id,
        "labels": dict(guest.labels),
    }
    files = [
        _file(_PROGRAM, guest_program(), "0644"),
        _file(_SETTINGS, json.dumps(settings).encode(), "0600"),
        _file(_EACH_BOOT, _GUEST.encode(), "0755"),
    ]
    if broker.authority:
        files.append(_file(_AUTHORITY, _content(Path(broker.authority)), "0644"))
    return files
