"""What our drivers' saved machines have in common: the names of their files, and how they are read.

A checkpoint's table may have come with an imported snapshot, so no value of it is used before it
was checked here. What only one driver records is in that driver's `saved.py`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.files import read_regular
from boincvm.host.resources import processor_name
from boincvm.hypervisor.contract import FileSeal, Finding
from boincvm.json_value import is_whole

MEMORY_NAME = re.compile(r"memory-[0-9]{6,9}")
QCOW2_LAYER = re.compile(r"disk-[0-9]{6,9}\.qcow2")
_LONGEST_SHOWN = 80
_LONGEST_TABLE = 1 << 16


def memory_name(number: int) -> str:
    """Return the name of the file with the memory of that checkpoint."""
    return f"memory-{number:06d}"


def check_layer(name: object, pattern: re.Pattern[str]) -> str:
    """Return the name of a layer of a machine's disk. Raises HypervisorError for any other."""
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise HypervisorError(f"{shown(name)} is not a layer of a machine's disk")
    return name


def check_layers(names: Iterable[object], pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Return the names of the layers of one machine's disk. Raises HypervisorError."""
    layers = tuple(check_layer(name, pattern) for name in names)
    if len(set(layers)) != len(layers):
        raise HypervisorError("a layer of the machine's disk is named twice")
    return layers


def layers(table: Mapping[str, object], pattern: re.Pattern[str], most: int) -> tuple[str, ...]:
    """Return the layers that a checkpoint records, at most `most`. Raises HypervisorError."""
    value = table.get("layers")
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise HypervisorError("the checkpoint does not list its layers")
    return check_layers(value, pattern)


def text(table: Mapping[str, object], name: str) -> str:
    """Return a text that a checkpoint records. Raises HypervisorError."""
    value = table.get(name)
    if not isinstance(value, str):
        raise HypervisorError(f"the checkpoint does not record its {name}")
    return value


def matched(table: Mapping[str, object], name: str, pattern: re.Pattern[str]) -> str:
    """Return a text of this pattern that a checkpoint records. Raises HypervisorError."""
    value = text(table, name)
    if not pattern.fullmatch(value):
        raise HypervisorError(f"the checkpoint's {name} is invalid: {shown(value)}")
    return value


def flag(table: Mapping[str, object], name: str) -> bool:
    """Return a Boolean value that a checkpoint records. Raises HypervisorError."""
    value = table.get(name)
    if not isinstance(value, bool):
        raise HypervisorError(f"the checkpoint does not record its {name}")
    return value


def number(table: Mapping[str, object], name: str) -> int:
    """Return a number of at least 0 that a checkpoint records. Raises HypervisorError."""
    value = table.get(name)
    if not is_whole(value):
        raise HypervisorError(f"the checkpoint does not record its {name}")
    return value


def read_table_file(path: Path) -> dict[str, object]:
    """Return the table in a JSON file of a golden snapshot. Raises HypervisorError, OSError."""
    try:
        table = json.loads(read_regular(path, _LONGEST_TABLE))
    except ValueError:
        raise HypervisorError(f"{path.name} cannot be read") from None
    if not isinstance(table, dict):
        raise HypervisorError(f"{path.name} cannot be read")
    return table


def check_sealed(names: Iterable[str], files: Mapping[str, FileSeal]) -> None:
    """Raise HypervisorError unless the checkpoint has sealed all of these files."""
    for name in names:
        if name not in files:
            raise HypervisorError(f"{name} is not among the files of the checkpoint")


def same_processor(processor: str) -> Finding:
    """Return whether this host has the processor on which a machine was saved."""
    is_same = processor == processor_name()
    return Finding(is_good=is_same, what=f"it was saved on the processor {shown(processor)}")


def check_findings(findings: Iterable[Finding]) -> None:
    """Raise HypervisorError for the first finding for which a machine cannot resume here."""
    for finding in findings:
        if not finding.is_good:
            raise HypervisorError(f"the machine cannot resume here: {finding.what}")


def shown(value: object) -> str:
    """Return a value from a checkpoint as messages show it: ASCII, and not too long."""
    return ascii(value)[:_LONGEST_SHOWN]
