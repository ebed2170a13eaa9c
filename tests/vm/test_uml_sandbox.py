"""What a hostile program can access in User-mode Linux: nothing of the host, from inside or
outside.

A program in the guest tries everything against the kernel; and one in place of the kernel, as if a
guest had taken it over, tries everything against the sandbox.
"""

import base64
import errno
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from boincvm.guestlink.link import GuestLink
from boincvm.host.users import is_root
from boincvm.hypervisor.contract import Machine, MachineSpec
from boincvm.hypervisor.registry import open_driver
from boincvm.hypervisor.uml.driver import UmlDriver
from boincvm.hypervisor.uml.kernel import PROGRAM, UmlKernel
from boincvm.hypervisor.uml.network import Network
from boincvm.hypervisor.uml.sandbox import make_sandbox
from support.driven import answering, shell

HOSTILE = Path(__file__).parents[1] / "support/hostile"
SECRET = "what only the host knows"
STUB_PAGES = 3
"""Pages of the kernel's code and data in each address space, below the end of its own stack."""
PIECE = 60_000
pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    directory = tmp_path_factory.mktemp("hostile")

    def compile_static(name: str) -> Path:
        program = directory / name
        command = ["gcc", "-O1", "-static", "-w", "-o", program, HOSTILE / f"{name}.c"]
        subprocess.run(command, check=True)
        return program

    return compile_static


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    tmp_path.chmod(0o755)
    return path


def spec_in(base_image: Path, directory: Path) -> MachineSpec:
    directory.mkdir(mode=0o700)
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    return MachineSpec(directory, *files, memory=256 << 20, cpus=1, ephemeral=True)


@pytest.fixture
async def machine(uml_kernel: Path, base_image: Path, tmp_path: Path) -> AsyncIterator[Machine]:
    machine = (await open_driver("uml", None)).machine(spec_in(base_image, tmp_path / "machine"))
    yield machine
    await machine.destroy()


def attempts(
    escaped: Path, *arguments: object, descriptors: Sequence[int] = ()
) -> tuple[dict[str, str], list[int]]:
    """Run the program in place of a kernel; return its report, and the result of each attempt."""
    kernel = os.open(escaped, os.O_RDONLY)
    try:
        sandbox = make_sandbox(kernel, None, 64 << 20, None)
    finally:
        os.close(kernel)
    try:
        done = subprocess.run(
            [*sandbox.command, *map(str, arguments)],
            pass_fds=(*sandbox.descriptors, *descriptors),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
    finally:
        sandbox.close()
    pairs = [line.partition(" ") for line in done.stderr.splitlines()]
    read = [int(result) for name, _, result in pairs if name == "read"]
    return {name: result for name, _, result in pairs if name != "read"}, read


def test_an_attacker_who_controls_the_kernel_has_nothing(
    compiled: Callable[[str], Path], secret: Path
) -> None:
    reported, read = attempts(compiled("escaped"), secret, Path("/etc/passwd"), Path("/dev/kvm"))
    assert read == [errno.ENOENT] * 3
    assert int(reported.pop("processes")) == 1  # itself
    assert set(reported.pop("root").split()) == {"linux", "proc", "tmp", "dev"}
    uid = int(reported.pop("uid"))
    assert uid != 0
    assert uid >= 61184 if is_root() else uid == os.getuid()
    results = {name: int(result) for name, result in reported.items()}
    assert len(results) > 20
    assert [name for name, result in results.items() if result == 0] == []
    assert results["parent"] == errno.ENOENT
    assert results["create"] == errno.EROFS
    assert results["allocate"] == errno.ENOMEM  # limited private memory
    assert results["fill"] == errno.ENOSPC  # limited shared memory
    assert results["clone3"] == errno.ENOSYS
    for name in ("inet", "inet6", "netlink", "vsock", "unshare", "clone", "mount", "bpf", "ring"):
        assert results[name] == errno.EPERM, name


def test_its_network_card_reaches_no_socket_of_the_host(
    compiled: Callable[[str], Path], tmp_path: Path
) -> None:
    """Abstract names of UNIX sockets belong to the network namespace in which the card was made."""
    name = f"boincvm-{os.urandom(8).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as host:
        host.setblocking(False)
        host.bind(f"\0{name}")
        network = Network((), tmp_path)
        try:
            card = network.card.fileno()
            results, _ = attempts(compiled("card"), card, name, descriptors=[card])
        finally:
            network.end()
        assert set(results) == {"send", "pass", "connect", "bind"}
        for attempt in ("connect", "bind"):
            assert results[attempt] == str(errno.EPERM)
        with pytest.raises(BlockingIOError):
            host.recv(100)


def stub_of(machine: Machine) -> int:
    kernel = machine.process_ids()[0]
    for line in Path(f"/proc/{kernel}/maps").read_text().splitlines():
        if line.endswith("[stack]"):
            return int(line.split()[0].partition("-")[2], 16) - STUB_PAGES * 4096
    raise AssertionError("the kernel has no stack")


async def put(link: GuestLink, program: Path) -> str:
    text = base64.b64encode(program.read_bytes()).decode()
    for begin in range(0, len(text), PIECE):
        await shell(link, f"printf %s {text[begin : begin + PIECE]} >>/tmp/text")
    await shell(link, "base64 -d /tmp/text >/tmp/hostile; chmod 755 /tmp/hostile")
    return "/tmp/hostile"


async def test_a_program_calls_the_host_from_the_kernels_own_page(
    machine: Machine, compiled: Callable[[str], Path], secret: Path
) -> None:
    """System calls from the kernel's page in each address space are not intercepted; all that
    access a file, a network or another program are refused there. The guest survives."""
    async with answering(machine) as link:
        program = await put(link, compiled("guest"))
        output = await shell(link, f"{program} {secret} {stub_of(machine):x}")
        lines = dict(line.rpartition(" ")[::2] for line in output.splitlines())
        assert lines["open"] == str(errno.ENOENT)  # it is the guest's kernel that looks
        for location in ("/dev/mem", "/dev/kmem", "/proc/kcore", "/dev/port"):
            assert lines[location] == str(errno.ENOENT)
        assert lines["found"] == "1"
        for call in ("open", "socket", "execve"):
            assert int(lines[f"stub-{call} ended"]) & 0x7F, output  # by a signal
            assert f"stub-{call} returned" not in lines
        assert SECRET not in output
        assert await shell(link, "echo alive") == "alive\n"


async def test_its_processes_are_confined(machine: Machine) -> None:
    async with answering(machine) as link:
        await shell(link, "true")
        (kernel,) = machine.process_ids()
        status = Path(f"/proc/{kernel}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Seccomp"] == "2"
        assert fields["NoNewPrivs"] == "1"
        assert int(fields["CapEff"], 16) == 0
        for space in ("mnt", "pid", "ipc", "net", "uts", "user"):
            theirs, ours = (Path(f"/proc/{pid}/ns/{space}").readlink() for pid in (kernel, "self"))
            assert theirs != ours, space


async def test_debian_s_kernel_runs_in_it_too(base_image: Path, tmp_path: Path) -> None:
    """It is dynamically linked, and traces its programs."""
    path = Path("/usr/bin") / PROGRAM
    driver = UmlDriver(UmlKernel(path, is_own=False))
    machine = driver.machine(spec_in(base_image, tmp_path / "machine"))
    try:
        async with answering(machine) as link:
            assert (await shell(link, "uname -r")).startswith("6.1")
            await machine.pause()
            await machine.resume()
            assert await shell(link, "echo alive") == "alive\n"
    finally:
        await machine.destroy()
