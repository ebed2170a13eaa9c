"""Checks whether saved machines can continue on this computer, before it is tried."""

import platform
from collections.abc import Mapping
from pathlib import Path

from boincvm.errors import BoincvmError, HypervisorError
from boincvm.hypervisor.contract import Checkpoint, Finding
from boincvm.hypervisor.registry import open_driver
from boincvm.image.store import ImageStore
from boincvm.machine.host_capacity import check_room
from boincvm.wrapper.snapshot.archive import JobSnapshot


async def check_snapshot(snapshot: JobSnapshot, directory: Path) -> list[Finding]:
    """Return the findings for and against running the job in `directory`."""
    here = platform.machine()
    if snapshot.architecture != here:
        what = f"it was made on {snapshot.architecture}, and this is {here}"
        return [Finding(is_good=False, what=what)]
    findings = [Finding(is_good=True, what=f"the architecture is the same: {here}")]
    for machine in snapshot.machines:
        name = str(machine.get("directory"))
        findings += [
            finding._replace(what=f"{name}: {finding.what}")
            for finding in await _check_machine(snapshot, machine, directory)
        ]
    return findings


async def _check_machine(
    snapshot: JobSnapshot, machine: Mapping[str, object], directory: Path
) -> list[Finding]:
    findings: list[Finding] = []
    image_name, digest = str(machine.get("image_name")), str(machine.get("image"))
    try:
        with ImageStore().open(image_name) as image:
            if image.digest == digest:
                findings.append(Finding(is_good=True, what=f"its image {image_name} is here"))
            else:
                what = f"the image {image_name} is a different one here ({image.digest[:12]})"
                findings.append(Finding(is_good=False, what=f"{what}; it needs {digest[:12]}"))
            driver = await open_driver(str(machine.get("driver")), image.kernel)
            if driver.saved_machines is None:
                raise HypervisorError(f"the driver {driver.name} cannot save machines")
            findings += driver.saved_machines.examine(_checkpoint(snapshot, machine))
        check_room(directory, int(str(machine.get("memory"))))
        findings.append(Finding(is_good=True, what="there is enough memory and disk space"))
    except (BoincvmError, ValueError, OSError) as error:
        findings.append(Finding(is_good=False, what=str(error)))
    return findings


def _checkpoint(snapshot: JobSnapshot, machine: Mapping[str, object]) -> Checkpoint:
    table, prefix = machine.get("machine"), f"{machine.get('directory')}/"
    files = {
        name.removeprefix(prefix): seal
        for name, seal in snapshot.files.items()
        if name.startswith(prefix)
    }
    return Checkpoint(0, files, table if isinstance(table, dict) else {})
