"""A controller's machines, without the controller."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines

BUS = BrokerAddress("login", "passcode", path="/nowhere")


def known(directory: Path, reported: list[str] | None = None) -> Machines:
    changed: Callable[[str], None] = (lambda _: None) if reported is None else reported.append
    return Machines(directory / "machines", lambda _: BUS, changed)


def make(all_of_them: Machines, name: str, **options: object) -> LocalMachine:
    usual: dict[str, object] = {
        "image": "base",
        "memory": "256M",
        "cpus": 1,
        "disk": None,
        "network": False,
        "display": False,
        "labels": {},
    }
    return all_of_them.create(name, **{**usual, **options})  # type: ignore[arg-type]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
