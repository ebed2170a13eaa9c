"""The worker of one machine of a controller; a scripted client stands in for the controller."""

import asyncio
import base64
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import pytest

from boincvm.client.address import ControllerAddress
from boincvm.client.client import Client, Gotten, Table
from boincvm.errors import ControllerGoneError, OutputFileError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.fleet import worker as fleet_worker
from boincvm.fleet.worker import FleetWorker
from boincvm.guestlink.program import NO_INTERPRETER
from boincvm.job.files import input_file, output_of_option
from boincvm.job.model import Job, MachineTask
from boincvm.job.sweep import Item
from boincvm.runner.sweep_results import STDERR, STDOUT, ItemEnd

pytestmark = pytest.mark.timeout(30)
VM = "lab"


def piece(offset: int, data: bytes, stream: str = "stdout") -> Table:
    return {
        "vm": VM,
        "stream": stream,
        "offset": offset,
        "data": base64.b64encode(data).decode(),
    }


def ended(**answer: int) -> Table:
    return {"command": {"answers": {VM: {"state": "done", **answer}}}}


class ScriptedClient(Client):
    """Stands in for a controller: `program` is the output of programs, `listed` that of patterns.

    Where `program` ends without an end, the controller breaks off and goes on with `rest`.
    """

    def __init__(self) -> None:
        super().__init__(ControllerAddress(Path("nowhere")))
        self.program = [ended()]
        self.rest: list[Table] = []
        self.listed: dict[str, list[Table]] = {}
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.begins: list[int] = []
        self.cancelled = threading.Event()
        self.hangs = threading.Event()
        """Cancelling hangs until it is set, if it is not set at first."""
        self.hangs.set()
        self.on_program: Callable[[], object] = lambda: None
        """Called in the thread that waits for a program."""

    def call(self, operation: str, **arguments: object) -> Table:
        self.calls.append(operation)
        if operation == "cancel":
            self.hangs.wait()
            self.cancelled.set()
        capabilities: Table = {"capabilities": ["run", "files"]}
        return {"vms": [{"id": VM, "state": "running", "presence": "present", **capabilities}]}

    def run(self, **arguments: object) -> tuple[Table, Iterator[Table]]:
        argv = arguments["argv"]
        assert isinstance(argv, list)
        if argv[0] in ("prog", "./prog"):
            return {"command": "c1"}, self._broken(self.program)
        listed = self.listed[argv[-1]] if argv[0] == "sh" else []
        return {"command": "c0"}, iter([*listed, ended()])

    def output(self, command_id: str, *, begin: int = 0) -> Iterator[Table]:
        self.begins.append(begin)
        return iter(self.rest)

    def _broken(self, tables: list[Table]) -> Iterator[Table]:
        for table in tables:
            if not table:  # the program goes on until it is cancelled
                self.on_program()
                self.cancelled.wait()
                yield ended(signal=9)
                return
            yield table
            if "command" in table:
                return
        raise ControllerGoneError("the controller closed the connection")

    def put(self, vms: str, path: str, body: object, size: int | None, **_: object) -> Table:
        return {"outcomes": {vms: {"state": "put"}}}

    @contextmanager
    def get(self, vm: str, path: str, *, transfer: str, begin: int = 0) -> Iterator[Gotten]:
        name = path.split("/", 2)[2]
        if name not in self.files:
            raise OutputFileError(f"{name} is not there")
        data = self.files[name]
        digest = blake2b(data, digest_size=32).hexdigest()
        yield Gotten(False, 0o644, len(data), digest, iter([data]))

    def give_input(self, command_id: str, data: bytes, *, ends: bool = False) -> None:
        raise UsageError("the command takes no more input")


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.results = directory / "1"
        self.results.mkdir()
        self.client = ScriptedClient()
        self.worker = FleetWorker(self.client, VM, "map-x")

    def job(self, *outputs: str, stdin: str | None = None, word: str = "a") -> Job[MachineTask]:
        task = MachineTask(("prog", word), stdin=Path(stdin or os.devnull))
        found = tuple(output_of_option(text, replaces=False) for text in outputs)
        return Job((task,), self.directory, outputs=found)

    async def run(self, *outputs: str, stdin: str | None = None) -> ItemEnd:
        return await self.run_job(self.job(*outputs, stdin=stdin))

    async def run_job(self, job: Job[MachineTask]) -> ItemEnd:
        return await self.worker.run(job, ItemEnd(Item(1, ("a",)), ("prog",), self.results))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_output_that_has_a_hole_is_a_failure(bench: Bench) -> None:
    bench.client.program = [piece(0, b"first"), piece(9, b"last"), ended()]
    end = await bench.run()
    assert end.exit_code == ExitCode.OUTPUT_FILE
    assert "4 bytes of stdout are lost" in end.message
    assert bench.client.cancelled.is_set()
    assert (bench.results / "stdout").read_bytes() == b"first"


async def test_a_list_of_matches_that_has_a_hole_is_a_failure(bench: Bench) -> None:
    bench.client.listed["*.txt"] = [piece(6, b"b.txt\0")]
    bench.client.files["b.txt"] = b""
    end = await bench.run("*.txt")
    assert end.exit_code == ExitCode.OUTPUT_FILE
    assert "output *.txt: the list of what matches it is not whole" in end.message


@pytest.mark.parametrize(
    ("answer", "expected"), [({"code": 200}, (200, 0)), ({"signal": 9}, (137, 9))]
)
async def test_exit_codes_and_signals(
    bench: Bench, answer: dict[str, int], expected: tuple[int, int]
) -> None:
    bench.client.program = [ended(**answer)]
    end = await bench.run()
    assert (end.exit_code, end.signal) == expected


async def test_patterns_with_one_destination(bench: Bench) -> None:
    bench.client.listed = {"a/*": [piece(0, b"a/x\0")], "b/*": [piece(0, b"b/x\0")]}
    bench.client.files = {"a/x": b"of a", "b/x": b"of b"}
    end = await bench.run("a/*:r/", "b/*:r/")
    assert end.exit_code == ExitCode.OUTPUT_FILE
    assert "b/x would be r/x, but output a/* puts a/x at r/x" in end.message
    assert (bench.results / "r/x").read_bytes() == b"of a"


async def test_a_match_that_cannot_come_back_holds_up_no_other(bench: Bench) -> None:
    bench.client.listed["*"] = [piece(0, b"a\0b\xff\0c\0")]
    bench.client.files = {"c": b"of c"}
    end = await bench.run("*")
    assert end.exit_code == ExitCode.OUTPUT_FILE
    assert "a is not there; output" in end.message
    assert "has a name that is not UTF-8" in end.message
    assert (bench.results / "c").read_bytes() == b"of c"


async def test_a_missing_standard_input_is_a_failure_of_the_item(bench: Bench) -> None:
    end = await bench.run(stdin="none")
    assert end.exit_code == ExitCode.INPUT_FILE
    assert "--stdin none: No such file" in end.message


async def test_input_that_cannot_be_sent_ends_the_program(bench: Bench) -> None:
    (bench.directory / "words").write_text("hello")
    bench.client.program = [piece(0, b"begun"), {}]
    end = await bench.run(stdin="words")
    assert end.exit_code == ExitCode.INPUT_FILE
    assert "not all of --stdin could be sent to the program" in end.message


async def test_a_controller_that_restarts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_worker, "WAITS", (0.0,))
    bench.client.program = [piece(0, b"one"), piece(0, b"two", "stderr")]
    bench.client.rest = [piece(2, b"e, three"), piece(3, b"!", "stderr"), ended(code=4)]
    end = await bench.run()
    assert end.exit_code == 4
    assert bench.client.begins == [3]
    assert (bench.results / "stdout").read_bytes() == b"one, three"
    assert (bench.results / "stderr").read_bytes() == b"two!"


async def test_a_controller_that_does_not_answer_holds_up_no_interrupt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_worker, "_CANCEL_LIMIT", 0.1)
    bench.client.program = [{}]
    bench.client.hangs.clear()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    bench.client.on_program = lambda: loop.call_soon_threadsafe(begun.set)
    work = asyncio.ensure_future(bench.run())
    try:
        await begun.wait()
        work.cancel()
        await asyncio.wait((work,), timeout=10)
        assert work.cancelled()
        async with asyncio.timeout(10):
            await bench.worker.close()
    finally:
        bench.client.hangs.set()


async def test_a_program_that_is_a_file_beside_the_user(bench: Bench) -> None:
    answer = {"state": "done", "error": "no such program in the guest: prog"}
    bench.client.program = [{"command": {"answers": {VM: answer}}}]
    assert (await bench.run()).hint == ""
    (bench.directory / "prog").touch()
    end = await bench.run()
    assert end.exit_code == ExitCode.NO_SUCH_PROGRAM
    assert "there is './prog', did you mean that?" in end.hint


async def test_a_script_without_its_interpreter(bench: Bench) -> None:
    error = f"the guest cannot execute prog: {NO_INTERPRETER}"
    answer = {"state": "done", "error": error, "hint": "of the guest"}
    bench.client.program = [{"command": {"answers": {VM: answer}}}]
    end = await bench.run()
    assert (end.exit_code, end.message) == (ExitCode.CANNOT_EXECUTE, error)
    assert end.hint == "of the guest"
    (bench.directory / "prog").write_bytes(b"#!/opt/x\r\n")
    job = bench.job()
    task = job.tasks[0]._replace(argv=("./prog",))
    sent = job._replace(tasks=(task,), inputs=(input_file("prog", bench.directory),))
    for name in (STDOUT, STDERR):
        (bench.results / name).unlink()
    end = await bench.run_job(sent)
    assert end.message == rf"{error}, '/opt/x\r'"
    assert "carriage return" in end.hint


def test_an_argument_that_is_not_utf8(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"found b'b\\xff', which is not UTF-8"):
        bench.worker.check(bench.job(word="b\udcff"), bench.results)


def test_paths_of_outputs_are_checked(bench: Bench) -> None:
    job = bench.job()._replace(outputs=(output_of_option("o\udcff", replaces=False),))
    assert job.outputs[0].source == PurePosixPath("o\udcff")
    with pytest.raises(UsageError, match="not UTF-8"):
        bench.worker.check(job, bench.results)
