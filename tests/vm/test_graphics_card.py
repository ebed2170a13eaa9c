"""A graphics card of the host for a machine, as far as a host without one can show.

No computer of ours has a card that could be given away: here the real QEMU takes the options, up to
the device, which does not exist.
"""

import json
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.exit_codes import ExitCode
from boincvm.host import passthrough
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from support.booted import spec_in
from support.command_line import boincvm

NOWHERE = "ffff:ff:1f.7"
"""No host has so many buses."""
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("base_image")]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(f'machine.gpu = "{NOWHERE}"\n[[task]]\ncommand = "true"\n')
    return path


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), ExitCode.HOST, f"this host has no PCI device {NOWHERE}"),
        (
            ("--driver", "uml"),
            ExitCode.USAGE,
            "a machine of the driver uml cannot have a graphics card of the host",
        ),
        (
            ("--resumable",),
            ExitCode.USAGE,
            "found gpu in the job file of a resumable job, expected none",
        ),
    ],
)
def test_a_card_that_the_machine_cannot_have(
    job: Path, options: tuple[str, ...], code: ExitCode, message: str
) -> None:
    done = boincvm("run", "--json", *options, str(job))
    assert done.returncode == code, done.stderr
    assert message in done.stdout + done.stderr
    if not options:
        assert json.loads(done.stdout)["error"]["hint"] == "lspci -D lists the devices"


async def test_qemu_takes_the_options(
    base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passthrough, "prepare_passthrough", lambda *_: None)
    spec: MachineSpec = spec_in(tmp_path / "machine", base_image)._replace(gpu=NOWHERE)
    machine = QemuDriver("tcg").machine(spec)
    assert machine.checkpointing is None
    try:
        with pytest.raises(HypervisorError, match=rf"vfio .*{NOWHERE}: no such host device"):
            await machine.start()
    finally:
        await machine.destroy()
