"""What `vmrun` prints, as VMware's users report, and how it is interpreted."""

from pathlib import Path

import pytest

from boincvm.errors import HostDiskFullError, HypervisorMissingError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.doctor import Status
from boincvm.hypervisor.registry import find_driver
from boincvm.hypervisor.verdict import Ability
from boincvm.hypervisor.vmware import installation
from boincvm.hypervisor.vmware.installation import Product, product_of
from boincvm.hypervisor.vmware.vmrun import (
    NOT_RUNNING,
    Version,
    VMRun,
    VMwareError,
    environment,
    error_from,
    parse_version,
)
from support.vmware.fixture import vmware_installed

USAGE = "\nvmrun version 1.17.0 build-22583795\n\nUsage: vmrun [AUTHENTICATION-FLAGS] COMMAND\n"


def no_kernel() -> None:
    """Return None: there is no image here."""


def test_the_version() -> None:
    assert parse_version(USAGE) == Version(1, 17, 0, 22583795)
    assert str(parse_version(USAGE)) == "1.17.0.22583795"


@pytest.mark.parametrize("output", ["", "vmrun", "vmrun version 1.17 build-1", "x" * 100_000])
def test_no_version(output: str) -> None:
    assert parse_version(output) is None


def test_a_command() -> None:
    vmrun = VMRun("/bin/vmrun", Product.FUSION, Version(1, 17, 0, 1))
    command = ["/bin/vmrun", "-T", "fusion", "start", "/a b.vmx", "nogui"]
    assert vmrun.command("start", "/a b.vmx", "nogui") == command


@pytest.mark.parametrize(
    ("output", "message", "hint"),
    [
        ("Error: The file is already in use\n", "The file is already in use", "close the machine"),
        (f"Error: {NOT_RUNNING}: /a.vmx\n", f"{NOT_RUNNING}: ", ""),
        ("Error: Cannot connect to the virtual machine\n", "Cannot connect", "vmware-modconfig"),
        ("Error: The operation is not supported\n", "not supported", "Player can do less"),
        ("Unable to connect to host.\nError: The specified version was not found\n", "version", ""),
        ("a\x1b[2J\nb" * 500, "a[2J b", ""),
        ("", "it printed nothing", ""),
    ],
)
def test_an_error(output: str, message: str, hint: str) -> None:
    error = error_from("start", output)
    assert isinstance(error, VMwareError)
    assert error.exit_code is ExitCode.HYPERVISOR_FAILED
    assert error.message.startswith("VMware refused start: ")
    assert message in error.message
    assert hint in error.hint
    assert len(error.message) < 400


def test_a_full_disk() -> None:
    error = error_from("snapshot", "Error: There is not enough space in the file system\n")
    assert isinstance(error, HostDiskFullError)


async def test_an_error_that_ends_with_status_0(tmp_path: Path) -> None:
    """Some versions do that."""
    program = tmp_path / "vmrun"
    program.write_text(f"#!/bin/sh\necho 'Error: {NOT_RUNNING}: '\"$4\"\n")
    program.chmod(0o755)
    vmrun = VMRun(str(program), Product.WORKSTATION, Version(1, 17, 0, 1))
    with pytest.raises(VMwareError) as caught:
        await vmrun.run("stop", "/a.vmx", "hard")
    assert caught.value.text == f"{NOT_RUNNING}: /a.vmx"


def test_the_environment_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/boinc/project")
    output = environment()
    assert output["HOME"] == "/home/somebody"
    assert output["LC_ALL"] == "C"
    assert "LD_LIBRARY_PATH" not in output


def test_it_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = find_driver("vmware")
    with pytest.raises(HypervisorMissingError, match="there is no vmrun") as caught:
        package.assess(no_kernel)
    assert "install VMware Workstation" in caught.value.hint
    assert [check(no_kernel) for _, check in package.checks] == [[]]
    assert "a real VMware: nothing yet" in package.proved_by


def test_what_doctor_says() -> None:
    with vmware_installed() as stand_in:
        package = find_driver("vmware")
        verdict = package.assess(no_kernel)
        assert verdict.is_usable
        assert not verdict.is_proved
        assert "unproved" in verdict.acceleration
        assert verdict.abilities.of_machines == {Ability.CHECKPOINT}
        (((_, check),)) = package.checks
        (result,) = check(no_kernel)
        assert result.status is Status.OK
        assert "1.17.0.22583795" in result.detail
        assert result.detail.endswith("unproved: nobody has run boincvm with a real VMware")
        assert product_of(str(stand_in.vmrun)) is Product.WORKSTATION


def test_without_the_kernel_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with vmware_installed():
        monkeypatch.setattr(installation, "DEVICE", tmp_path / "vmmon")
        verdict = find_driver("vmware").assess(no_kernel)
    assert not verdict.is_usable
    assert "vmware-modconfig" in verdict.remedy


def test_an_old_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "vmrun"
    program.write_text("#!/bin/sh\necho vmrun version 1.14.2 build-2779224; exit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_driver("vmware").assess(no_kernel).trouble == "vmrun 1.14.2.2779224 is too old"
