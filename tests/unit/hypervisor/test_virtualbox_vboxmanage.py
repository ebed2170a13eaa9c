"""What VBoxManage prints, as in VirtualBox 7.2, and how it is interpreted."""

from pathlib import Path

import pytest

from boincvm import redaction
from boincvm.errors import HostDiskFullError, HypervisorError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.virtualbox.command import modify
from boincvm.hypervisor.virtualbox.installation import MODULE_HINT
from boincvm.hypervisor.virtualbox.nvme import extension_pack
from boincvm.hypervisor.virtualbox.remote_desktop import bound_port
from boincvm.hypervisor.virtualbox.vboxmanage import (
    Version,
    VirtualBoxError,
    environment,
    error_from,
    parse_table,
    parse_version,
    without_preamble,
)
from boincvm.job.model import PortForward

PREAMBLE = (
    "WARNING: The character device /dev/vboxdrv does not exist.\n"
    "\t Please install the virtualbox-dkms package and the appropriate\n"
    "\t headers, most likely linux-headers-amd64.\n"
    "\n"
    "\t You will not be able to start VMs until this problem is fixed.\n"
)


@pytest.mark.parametrize("before", ["", PREAMBLE])
def test_the_version(before: str) -> None:
    assert parse_version(f"{before}7.2.22_Debianr175245\n") == Version(7, 2, 22)
    assert parse_version(f"{before}6.1.50r161033\n") == (6, 1, 50)
    assert Version(7, 0, 2) < (7, 0, 4) < Version(7, 2, 0)


@pytest.mark.parametrize("output", ["", "seven", PREAMBLE])
def test_no_version(output: str) -> None:
    with pytest.raises(HypervisorError, match="does not report its version"):
        parse_version(output)


def test_only_the_preamble_goes() -> None:
    table = 'name="x"\nVMState="running"\n'
    assert without_preamble(PREAMBLE + table) == table
    assert without_preamble(table) == table
    assert without_preamble(PREAMBLE) == ""
    cut = PREAMBLE.splitlines(keepends=True)[0]
    assert without_preamble(cut) == cut


def test_a_machine_in_lines() -> None:
    output = (
        'name="a \\"b\\""\n"boot-0-0"="/a=b.iso"\nmemory=256\n rec_screen0\n'
        'VideoMode="720,400,0"@0,0 1\nvrdeproperty[TCP/Address]=<not set>\n'
    )
    table = parse_table(output)
    assert table["boot-0-0"] == "/a=b.iso"
    assert table["memory"] == "256"
    assert table["vrdeproperty[TCP/Address]"] == "<not set>"
    assert "rec_screen0" not in table


LOCKED = (
    "VBoxManage: error: The machine 'N' is already locked for a session (or being unlocked)\n"
    "VBoxManage: error: Details: code VBOX_E_INVALID_OBJECT_STATE (0x80bb0007), component"
    " MachineWrap, interface IMachine, callee nsISupports\n"
    'VBoxManage: error: Context: "LockMachine(a->session, LockType_Write)" at line 640 of file'
    " VBoxManageModifyVM.cpp\n"
)


def test_an_error_with_a_code() -> None:
    error = error_from("modifyvm", LOCKED)
    assert isinstance(error, VirtualBoxError)
    assert error.code == "VBOX_E_INVALID_OBJECT_STATE"
    assert error.text == "The machine 'N' is already locked for a session (or being unlocked)"
    assert error.message == f"VirtualBox refused modifyvm: {error.text}"
    assert error.exit_code is ExitCode.HYPERVISOR_FAILED


def test_an_error_without_a_code() -> None:
    error = error_from("controlvm", "VBoxManage: error: Machine 'N' is not currently running.\n")
    assert isinstance(error, VirtualBoxError)
    assert (error.text, error.code) == ("Machine 'N' is not currently running.", "")


def test_a_folder_is_hidden_before_an_error_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_hidden", {})
    monkeypatch.setattr(redaction, "_pattern", None)
    redaction.hide("/home/somebody", "~")
    error = error_from("startvm", f"VBoxManage: error: {'x' * 291} /home/somebody/disk.vdi\n")
    assert error.message == f"VirtualBox refused startvm: {'x' * 291} ~/disk.v"


def test_an_error_in_no_form() -> None:
    assert "Segmentation fault" in error_from("list", "Segmentation fault\n").message
    assert "it printed nothing" in error_from("list", "").message
    assert len(error_from("list", "x" * 100_000).message) < 400


def test_a_full_disk() -> None:
    output = "VBoxManage: error: VDI: cannot write '/x.vdi' (VERR_DISK_FULL)\n"
    assert isinstance(error_from("createmedium", output), HostDiskFullError)


@pytest.mark.parametrize(
    "output",
    [
        "VBoxHeadless: Error -1908 in suplibOsInit!\nVBoxHeadless: Kernel driver not installed\n",
        "VBoxHeadless: Error -1910 in suplibOsInit!\nVERR_VM_DRIVER_LOAD_ERROR\n",
        "Error: failed to start machine. Error message: Driverless mode (VERR_SUP_DRIVERLESS)\n",
    ],
)
def test_no_kernel_module(output: str) -> None:
    error = error_from("the machine's start", output)
    assert error.hint == MODULE_HINT
    assert "cannot start a machine" in error.message


def test_another_hypervisor_has_the_processor() -> None:
    """The text is from its source code; no test machine can make it print this."""
    error = error_from("the machine's start", "VBoxManage: error: (VERR_VMX_IN_VMX_ROOT_MODE)\n")
    assert "KVM" in error.hint


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        (Version(6, 1, 50), ["--audio", "none"]),
        (Version(7, 0, 2), ["--audio", "none"]),
        (Version(7, 0, 4), ["--audio-enabled", "off"]),
        (Version(7, 2, 22), ["--audio-enabled", "off"]),
    ],
)
def test_options_by_version(spec: MachineSpec, version: Version, wanted: list[str]) -> None:
    options = modify("name", spec, version, ("/0", "/1", "/2"), "/snapshots")
    at = options.index(wanted[0])
    assert options[at : at + 2] == wanted


PACKS = """\
Extension Packs: 2
Pack no. 0:   VNC
Version:      6.1.26
Usable:       {vnc}
Why unusable:
Pack no. 1:   Oracle {vm}VirtualBox Extension Pack
Version:      6.1.26
Usable:       {oracle}
Why unusable:
"""


@pytest.mark.parametrize("vm", ["VM ", ""])
@pytest.mark.parametrize("is_usable", [False, True])
def test_the_extension_pack(vm: str, *, is_usable: bool) -> None:
    """Only Oracle's counts, and only if VirtualBox can use it."""
    output = {True: "true ", False: "false"}
    packs = PACKS.format(vm=vm, oracle=output[is_usable], vnc=output[not is_usable])
    name = f"Oracle {vm}VirtualBox Extension Pack"
    assert extension_pack(packs) == (name if is_usable else None)
    assert extension_pack("Extension Packs: 0\n") is None


@pytest.mark.parametrize(
    ("table", "port"),
    [
        ("vrdeport=33890\n", 33890),
        ("vrdeport=-1\n", None),
        ("vrdeport=0\n", None),
        ("vrdeport=65536\n", None),
        ('vrdeports="33890-33989"\n', None),
    ],
)
def test_the_port_of_a_remote_desktop(table: str, port: int | None) -> None:
    assert bound_port(table) == port


@pytest.mark.parametrize("network", [False, True])
def test_a_network_only_where_asked_for(spec: MachineSpec, *, network: bool) -> None:
    options = modify(
        "n", spec._replace(network=network), Version(7, 2, 0), ("/0", "/1", "/2"), "/s"
    )
    at = options.index("--nic1")
    assert options[at + 1] == ("nat" if network else "none")
    assert options[options.index("--vrde") + 1] == "off"


def test_forwarded_ports(spec: MachineSpec) -> None:
    """They are open only on the host's loopback address, and only with a network."""
    spec = spec._replace(network=True, forwards=(PortForward(8080, 80), PortForward(2222, 22)))
    options = modify("n", spec, Version(6, 1, 50), ("/0", "/1", "/2"), "/s")
    rules = [options[at + 1] for at, word in enumerate(options) if word == "--natpf1"]
    assert rules == [
        "tcp-8080,tcp,127.0.0.1,8080,10.0.2.15,80",
        "tcp-2222,tcp,127.0.0.1,2222,10.0.2.15,22",
    ]
    spec = spec._replace(network=False)
    assert "--natpf1" not in modify("n", spec, Version(7, 2, 0), ("/0", "/1", "/2"), "/s")


def test_the_environment_is_of_its_own() -> None:
    """A separate home is not enough: the service is found by the id of its sockets."""
    table = environment(Path("/the/home"), "boincvm-1", "/bin")
    assert table["VBOX_USER_HOME"] == table["HOME"] == "/the/home"
    assert table["VBOX_IPC_SOCKETID"] == table["LOGNAME"] == "boincvm-1"


@pytest.fixture
def spec() -> MachineSpec:
    files = (Path("/d"), Path("/kernel"), Path("/initrd"), Path("/root.qcow2"))
    return MachineSpec(*files, memory=256 << 20, cpus=1)
