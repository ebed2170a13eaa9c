"""`python -m boincvm.node FILE`: this machine as a guest on a bus, as a seed has told it.

A machine of a cloud runs it with all the rights of its root: the machine is what confines it. FILE
is JSON: the fields of a BrokerAddress, `id` and `labels`. image/cloud/guest_program.py packs it.
"""

import asyncio
import json
import sys
from pathlib import Path

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.protocol.guest import Guest
from boincvm.errors import BoincvmError, HostError
from boincvm.json_value import fault_of
from boincvm.node.host_node import guest_of_this_host, run_guest
from boincvm.standard_error import write_line

_MOST_BYTES = 64 << 10


def main(path: Path) -> int:
    """Be a guest until a signal ends it; return the exit code."""
    try:
        broker_address, guest = _settings(path)
        asyncio.run(run_guest(broker_address, guest, None))
    except BoincvmError as error:
        write_line(f"boincvm: {error.message}")
        return int(error.exit_code)
    return 0


def _settings(path: Path) -> tuple[BrokerAddress, Guest]:
    """Read who this machine is, and where the bus is. Raises HostError, UsageError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
        table = json.loads(content)
        labels = {str(name): str(value) for name, value in table["labels"].items()}
        address = BrokerAddress(
            str(table["login"]),
            str(table["passcode"]),
            host=str(table["host"]),
            port=int(table["port"]),
            authority=str(table["authority"]),
            dialect=str(table["dialect"]),
        )
        wanted = str(table["id"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostError(f"{path} does not say where the bus is: {fault_of(error)}") from error
    return address, guest_of_this_host(address, wanted or None, labels)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
