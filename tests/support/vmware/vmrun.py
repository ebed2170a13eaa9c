"""The stand-in's `vmrun`; see __init__.py. Its files are in the directory that it lies in."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(sys.argv[0]).absolute().parent
RUNNING = HERE / "running"
USAGE = "vmrun version 1.17.0 build-22583795\n\nUsage: vmrun [AUTHENTICATION-FLAGS] COMMAND\n"
SNAPSHOT_VERBS = ("snapshot", "listSnapshots", "deleteSnapshot", "revertToSnapshot")


class RefusedError(Exception):
    """What `vmrun` prints after "Error: "."""


def product() -> str:
    return (HERE / "product").read_text()


def name_of(vmx: Path) -> str:
    """Return the name of the control socket of a machine that runs."""
    return f"{abs(hash_of(str(vmx))):08x}"


def hash_of(text: str) -> int:
    value = 5381
    for character in text:
        value = (value * 33 + ord(character)) & 0xFFFFFFFF
    return value


def connect(vmx: Path) -> socket.socket:
    """Connect to the machine. Raises RefusedError if it does not run."""
    control = socket.socket(socket.AF_UNIX)
    try:
        control.connect(str(RUNNING / name_of(vmx)))
    except OSError:
        control.close()
        raise RefusedError(f"The virtual machine is not powered on: {vmx}") from None
    return control


def report(vmx: Path, *words: str) -> str:
    """Give the machine a command, and return its answer."""
    with connect(vmx) as control, control.makefile("rw") as stream:
        stream.write(json.dumps(words) + "\n")
        stream.flush()
        answer = stream.readline()
    if not answer:
        raise RefusedError("The virtual machine is not running")
    refused, output = json.loads(answer)
    if refused:
        raise RefusedError(refused)
    return str(output)


def list_running() -> str:
    found = []
    for path in sorted(RUNNING.glob("*.vmx")):
        with contextlib.suppress(RefusedError, FileNotFoundError):  # it ends just now
            vmx = Path(path.read_text())
            connect(vmx).close()
            found.append(str(vmx))
    return "".join(f"{line}\n" for line in (f"Total running VMs: {len(found)}", *found))


def start(vmx: Path) -> str:
    if not vmx.is_file():
        raise RefusedError("A file was not found")
    machine = subprocess.Popen(
        [sys.executable, "-I", "-S", str(HERE / "vmx.py"), str(vmx)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=(HERE / "stderr").open("ab"),
        start_new_session=True,
        cwd="/",
    )
    machine.returncode = 0  # it outlives us
    assert machine.stdout is not None
    output = machine.stdout.readline().decode().strip()
    if output != "ready":
        raise RefusedError(output or "Unknown error")
    return ""


def soft(vmx: Path, how: str) -> None:
    if how == "soft":
        connect(vmx).close()
        raise RefusedError(f"The VMware Tools are not running in the virtual machine: {vmx}")


def stop(vmx: Path, how: str = "soft") -> str:
    soft(vmx, how)
    return report(vmx, "stop")


def suspend(vmx: Path, how: str = "soft") -> str:
    soft(vmx, how)
    return report(vmx, "suspend")


VERBS: dict[str, Callable[..., str]] = {
    "start": lambda vmx, how="gui": start(vmx),
    "stop": stop,
    "suspend": suspend,
    "pause": lambda vmx: report(vmx, "pause"),
    "unpause": lambda vmx: report(vmx, "unpause"),
    "snapshot": lambda vmx, name: report(vmx, "snapshot", name),
    "deleteSnapshot": lambda vmx, name: report(vmx, "delete_snapshot", name),
}


def main(arguments: list[str]) -> int:
    if arguments[:1] != ["-T"] or len(arguments) < 3:
        print(USAGE)
        return 255
    kind, verb, *rest = arguments[1:]
    try:
        if kind != product():
            print("Unable to connect to host.")
            raise RefusedError("The specified version was not found")
        if verb in SNAPSHOT_VERBS and kind == "player":
            raise RefusedError("The operation is not supported")
        output = list_running() if verb == "list" else VERBS[verb](Path(rest[0]), *rest[1:])
    except RefusedError as error:
        print(f"Error: {error}")
        return 255
    print(output, end="")
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
