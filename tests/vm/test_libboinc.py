"""BOINC's API, and packages, in a real machine."""

import asyncio
import io
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from boincvm.guestlink.guest_paths import ENVIRONMENT, WORK
from boincvm.guestlink.program import GuestProgram
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.status_channel import (
    CheckpointWanted,
    Finish,
    FractionDone,
    StatusMessage,
    TrickleUp,
)
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.image.store import ImageStore
from boincvm.machine.managed import opened
from boincvm.machine.session import Session
from support.bench import LIMIT, Bench

CHECKOUT = Path(__file__).parents[2]
LIBRARY = CHECKOUT / "guest/libboinc"
TEXT = "The quick brown fox. " * 1000


def compile_static(name: str, program: Path) -> None:
    source = CHECKOUT / "tests/unit/libboinc" / name
    command = ["gcc", "-O2", "-static", "-pthread", f"-I{LIBRARY}", "-o", program]
    subprocess.run([*command, source, *LIBRARY.glob("*.c")], check=True, timeout=120)


def test_an_application_of_boinc_runs_in_a_machine(bench: Bench) -> None:
    compile_static("upper_case.c", bench.work / "app")
    (bench.work / "in").write_text("<soft_link>in_17</soft_link>\n")
    (bench.work / "in_17").write_text(TEXT)
    done = bench.run(
        "--input", "in", "--input", "in_17", "--output", "out",
        "--", "./app",
    )  # fmt: skip
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == b"%d letters" % len(TEXT)
    assert (bench.work / "out").read_text() == TEXT.upper()


def test_a_python_application_and_its_words(bench: Bench) -> None:
    shutil.copy(LIBRARY / "boinc.py", bench.work)
    (bench.work / "app.py").write_text(
        "import boinc\n"
        "boinc.init()\n"
        "for step in range(1001):\n"
        "    boinc.fraction_done(step / 1000)\n"
        "boinc.checkpoint_completed()\n"
        "boinc.finish(3, 'the end')\n"
    )
    script = (
        "mkfifo fifo; cat fifo >messages & export BOINCVM_STATUS_CHANNEL=$PWD/fifo; exec 3>fifo;"
        "python3 app.py 3>&-; code=$?; exec 3>&-; wait; exit $code"
    )
    done = bench.sh(script, "--input", "boinc.py", "--input", "app.py", "--output", "messages")
    assert (done.code, done.stderr) == (3, "")
    *fractions, checkpoint, finish = (bench.work / "messages").read_text().splitlines()
    assert 100 <= len(fractions) <= 120
    assert fractions[-1] == "fraction-done 1.000000"
    assert (checkpoint, finish) == ("checkpoint-completed", "finish 3 0 the end")


async def messages_of(session: Session, *arguments: str) -> list[StatusMessage]:
    """Return what the guest's program `app` sends to the host."""
    messages: list[StatusMessage] = []

    def receive(text: object, count: int) -> None:
        assert isinstance(text, list)
        messages.extend(text)
        program.grant(count)

    program = GuestProgram(
        session.link,
        ["./app", *arguments],
        directory=str(WORK),
        environment=ENVIRONMENT,
        output=lambda _, data: program.grant(len(data)),
        on_status=receive,
    )
    program.end_input()
    await program.wait()
    return messages


async def test_what_an_application_says_reaches_the_host(bench: Bench) -> None:
    compile_static("calls.c", bench.work / "app")
    machine = bench.root / "machine"
    machine.mkdir()
    with ImageStore().open("base") as image:
        spec = MachineSpec(
            directory=machine,
            kernel=image.kernel,
            initrd=image.initrd,
            root=image.root,
            memory=512 << 20,
            cpus=1,
            ephemeral=True,
        )
        async with (
            asyncio.timeout(LIMIT),
            opened(QemuDriver("tcg"), spec) as machine,
        ):
            session = machine.session
            await put_tree(
                session.link,
                session.transfer_disk,
                Path("app"),
                PurePosixPath("app"),
                directory=bench.work,
            )
            loop = await messages_of(session, "loop")
            trickles = await messages_of(session, "trickle", "kind", "text")
            flood = await messages_of(session, "flood")
    assert all(isinstance(word, FractionDone) for word in loop)
    assert 100 <= len(loop) < 1000
    assert [type(word) for word in trickles] == [TrickleUp, TrickleUp]
    assert all(
        isinstance(word, TrickleUp) and word.path.startswith(f"{WORK}/") for word in trickles
    )
    assert flood == [CheckpointWanted()] * 5000 + [Finish(0, False, "")]


def test_a_package_goes_in_and_out_of_a_running_guest(bench: Bench) -> None:
    library = bench.root / "libtwice.so.1"
    code = bench.root / "twice.c"
    code.write_text("int twice(int x) { return 2 * x; }\n")
    subprocess.run(["gcc", "-shared", "-o", library, code], check=True, timeout=60)
    with tarfile.open(bench.work / "twice.tar.xz", "w:xz") as archive:
        archive.add(library, "./usr/lib/libtwice.so.1")
        info = tarfile.TarInfo("./etc/hostname")
        info.size = 6
        archive.addfile(info, io.BytesIO(b"twice\n"))
    (bench.work / "use.py").write_text(
        "import ctypes\n"
        "try:\n"
        "    print(ctypes.CDLL('libtwice.so.1').twice(21))\n"
        "except OSError:\n"
        "    print('none')\n"
    )
    package = "python3 -I -S boincvm_guest_package.py"
    script = f"""
        set -e
        echo before >/etc/hostname
        python3 use.py
        {package} install twice.tar.xz record
        python3 use.py
        cat /etc/hostname
        {package} remove record
        python3 use.py
        cat /etc/hostname
        ls -A /usr/lib/libtwice* record 2>/dev/null | wc -l
    """
    done = bench.sh(
        script,
        "--input", str(CHECKOUT / "guest/boincvm_guest_package.py"),
        "--input", "twice.tar.xz",
        "--input", "use.py",
    )  # fmt: skip
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.split() == [b"none", b"42", b"twice", b"none", b"before", b"0"]
