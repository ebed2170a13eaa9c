"""What the tasks of a job.xml say of their virtual machines."""

from boincvm.job.boinc_job import MachineUse
from boincvm.job.job_xml_fields import Fields
from boincvm.job.model import MIB
from boincvm.job.values import DISK_BOUNDS, MEMORY_BOUNDS, MOST_CPUS, describe

OF_VMWRAPPER = (
    "virtualmachine",
    "image",
    "app_pathVM",
    "copy_app_to_VM",
    "copy_file_to_VM",
    "copy_file_from_VM",
)
OURS = ("memory_mb", "cpus", "disk_mb", "network", "install")

_DEFAULT_IMAGE = "base"


def check_host_task(task: Fields) -> None:
    """For a task with no machine: VMWrapper passes over what it says of one, ours is a fault."""
    for name in OURS:
        element = task.last(name)
        if element is not None:
            raise task.source.fault(element.line, f"<{name}>", "<virtualmachine> in the same task")
    for name in OF_VMWRAPPER:
        for element in task.all(name):
            task.source.ignore(element.line, f"<{name}>", "<virtualmachine> in the same task")


class Machines:
    """The virtual machines that the tasks read so far use. Raises JobFileError."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[MachineUse, Fields]] = {}

    def use(self, task: Fields) -> MachineUse | None:
        """What `task` says of its machine, together with what an earlier task said of it."""
        element = task.last("virtualmachine")
        if element is None:
            check_host_task(task)
            return None
        use = _read(task, task.machine_name(element))
        if use.name not in self._first:
            self._first[use.name] = use, task
            return use
        first, first_task = self._first[use.name]
        _refuse_contradiction(use, task, first, first_task)
        return use._replace(
            image=first.image,
            memory=first.memory,
            cpus=first.cpus,
            disk=first.disk,
            network=first.network,
        )


def _read(task: Fields, name: str) -> MachineUse:
    memory = task.sure_integer("memory_mb", *(bound // MIB for bound in MEMORY_BOUNDS))
    disk = task.sure_integer("disk_mb", *(bound // MIB for bound in DISK_BOUNDS))
    return MachineUse(
        name=name,
        image=task.file_name("image") or _DEFAULT_IMAGE,
        application_path=task.text("app_pathVM") or None,
        copy_application=task.sure_switch("copy_app_to_VM") or False,
        copy_in=task.file_names("copy_file_to_VM"),
        copy_out=task.file_names("copy_file_from_VM"),
        memory=None if memory is None else memory * MIB,
        cpus=task.sure_integer("cpus", 1, MOST_CPUS),
        network=task.sure_switch("network") or False,
        disk=None if disk is None else disk * MIB,
        packages=task.file_names("install"),
    )


def _refuse_contradiction(
    use: MachineUse, task: Fields, first: MachineUse, first_task: Fields
) -> None:
    """Raise if `task` says of the machine what its first task does not."""
    before_values = _description(first)
    for name, value in _description(use).items():
        element = task.last(name)
        if element is None or value == before_values[name]:
            continue
        before = first_task.last(name)
        said = f"nothing of <{name}>" if before is None else describe(before.text)
        line = first_task.line if before is None else before.line
        found = f"<{name}> {describe(element.text)} for the machine {describe(use.name)}"
        raise task.source.fault(element.line, found, f"what line {line} says: {said}")


def _description(use: MachineUse) -> dict[str, str | int | bool | None]:
    """What is the machine's own, not the task's, by the names of the elements."""
    return {
        "image": use.image,
        "memory_mb": use.memory,
        "cpus": use.cpus,
        "disk_mb": use.disk,
        "network": use.network,
    }
