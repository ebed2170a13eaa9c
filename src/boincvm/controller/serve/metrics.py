"""Write the controller's figures for Prometheus, in its text format, version 0.0.4.

(prometheus.io/docs/instrumenting/exposition_formats)
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from boincvm import __version__
from boincvm.controller.controller import Controller
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import HostError
from boincvm.host.files import free_space
from boincvm.host.resources import available_memory
from boincvm.json_value import Json

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Sample(NamedTuple):
    """One value of a metric."""

    value: float
    labels: Mapping[str, str] = {}


class Family(NamedTuple):
    """All values of a metric."""

    name: str
    description: str
    samples: list[Sample]
    kind: str = "gauge"


def metrics(controller: Controller) -> str:
    """Return all metrics as text."""
    lines: list[str] = []
    for family in (*_of_machines(controller), *_of_the_controller(controller)):
        lines.append(f"# HELP {family.name} {family.description}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += (
            f"{family.name}{_label_text(sample.labels)} {_number(sample.value)}"
            for sample in family.samples
        )
    return "".join(f"{line}\n" for line in lines)


def _of_machines(controller: Controller) -> Iterator[Family]:
    vms = [vm for vm in controller.overview.vms("all") if isinstance(vm, dict)]
    states = Counter(str(vm["state"]) for vm in vms if vm["is_local"])
    yield Family(
        "boincvm_machines",
        "Machines of this host, by state.",
        [Sample(states[state], {"state": str(state)}) for state in VmState],
    )
    presence = Counter(str(vm["presence"]) for vm in vms)
    yield Family(
        "boincvm_guests",
        "Guests of this and other hosts on the bus, by presence.",
        [Sample(presence[name], {"presence": name}) for name in ("present", "silent")],
    )
    yield Family(
        "boincvm_vm_up",
        "1 if the guest can answer, else 0.",
        [
            Sample(vm["presence"] == "present" and vm["state"] != "stuck", _identity(vm))
            for vm in vms
        ],
    )
    for name, field, description in (
        ("boincvm_vm_cpus", "cpu", "Processors that a guest keeps busy."),
        ("boincvm_vm_memory_bytes", "memory", "Memory that a machine was given."),
        ("boincvm_vm_host_memory_bytes", "memory_used", "Memory of the host that a machine uses."),
        ("boincvm_vm_progress_ratio", "progress", "Progress that a guest's program reports."),
        ("boincvm_vm_start_time_seconds", "started_at", "When a machine was started."),
        ("boincvm_vm_commands", "commands", "Commands that a guest has not answered yet."),
    ):
        yield Family(name, description, list(_of_each(vms, field)))


def _of_the_controller(controller: Controller) -> Iterator[Family]:
    version = Sample(1, {"version": __version__})
    yield Family("boincvm_build_info", "The version of the controller.", [version])
    commands = Counter(command.is_finished for command in controller.hub.commands.all())
    yield Family(
        "boincvm_commands",
        "Commands that the controller knows, by state.",
        [Sample(commands[False], {"state": "open"}), Sample(commands[True], {"state": "finished"})],
    )
    yield Family(
        "boincvm_events_total",
        "Events since the controller was started.",
        [Sample(controller.events.added)],
        "counter",
    )
    yield Family(
        "boincvm_disk_free_bytes",
        "Free space on the disk that has the machines.",
        [Sample(free_space(controller.directory))],
    )
    try:
        yield Family(
            "boincvm_host_memory_available_bytes",
            "Available memory of the host.",
            [Sample(available_memory())],
        )
    except HostError:
        return  # this host does not tell


def _of_each(vms: list[dict[str, Json]], field: str) -> Iterator[Sample]:
    for vm in vms:
        value = vm[field]
        if isinstance(value, int | float):
            yield Sample(value, _identity(vm))


def _identity(vm: Mapping[str, Json]) -> dict[str, str]:
    return {"vm": str(vm["id"]), "host": str(vm["host"])}


def _label_text(labels: Mapping[str, str]) -> str:
    parts = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()]
    return f"{{{','.join(parts)}}}" if parts else ""


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(int(value))
