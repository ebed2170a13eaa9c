"""The real BOINC client with one task and no server, for tests of what it starts.

Rig lays out a data directory (layout.py), starts `boinc` on it, asks and tells it what a
volunteer's manager would (gui_rpc.py), and leaves nothing behind. The task's programs can say
lines to the test: what they write to the FIFO that `$RIG_WORDS` names comes out of `Rig.word`.
"""

import os
import re
import select
import shutil
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.boinc.gui_rpc import GuiRpc
from support.boinc.layout import MASTER_URL, RESULT, Preferences, Work, lay_out, write_preferences
from support.boinc.watch import LIMIT, STEP, kill_all, state_of

CLIENT = "BOINCVM_TEST_CLIENT"
"""The environment variable that names another client than the one that is installed."""
MARK = "BOINCVM_RIG"
"""In the environment of everything that a rig has started."""

# States of a result and of its process, as the client numbers them (BOINC lib/common_defs.h).
COMPUTE_ERROR, FILES_UPLOADING, FILES_UPLOADED, ABORTED = 3, 4, 5, 6
UNINITIALIZED, EXECUTING, SUSPENDED = 0, 1, 9


@dataclass(frozen=True)
class TaskState:
    """What the client tells of the task. Times in seconds, sizes in bytes.

    `state` is the result's; `process_state` and what follows it belong to its process: 0 where
    it has none.
    """

    state: int
    exit_status: int
    suspended: bool
    process_state: int
    pid: int
    slot: int
    fraction_done: float
    cpu_time: float
    checkpoint_cpu_time: float
    elapsed_time: float
    resident: float

    @property
    def is_over(self) -> bool:
        return self.state >= COMPUTE_ERROR


@dataclass(frozen=True)
class Ended:
    """How the client says that the task ended; `stderr` is what it would report of stderr.txt.

    `cpu_time` and `elapsed_time` in seconds, as the project would see them.
    """

    state: int
    exit_status: int
    stderr: str
    cpu_time: float
    elapsed_time: float

    @property
    def is_success(self) -> bool:
        """Finished well; outputs, if there are any, wait to be uploaded."""
        return self.state in (FILES_UPLOADING, FILES_UPLOADED) and self.exit_status == 0


class Rig:
    """A client with its data directory beneath `root`; `start` starts it, `close` ends all."""

    def __init__(
        self,
        root: Path,
        work: Work,
        *,
        preferences: Preferences | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to a clean one, which the client hands on to the task."""
        self.root = root
        self.data = root / "boinc"
        self.home = root / "home"
        for directory in (self.data, self.home):
            directory.mkdir(parents=True)
        self.project = lay_out(self.data, work, preferences or Preferences())
        words = root / "words"
        os.mkfifo(words)
        self._words = os.open(words, os.O_RDWR | os.O_NONBLOCK)
        self._said = b""
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "LC_ALL": "C",
            MARK: str(root),
            "RIG_WORDS": str(words),
            **(environment or {}),
        }
        self.log: list[str] = []
        self._seen = 0
        self._changed = threading.Condition()
        self._client: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._rpc: GuiRpc | None = None

    # The client's life.

    def start(self) -> None:
        """Starts the client, or starts it again on what it left; returns when it answers."""
        self._end_client()
        # Found by our own PATH: what the task finds is another matter.
        boinc = shutil.which(os.environ.get(CLIENT, "boinc"))
        assert boinc is not None, f"the package boinc-client is not installed, or ${CLIENT} is none"
        self._client = subprocess.Popen(
            [boinc, "--dir", self.data, "--gui_rpc_unix_domain", "--allow_multiple_clients"],
            cwd=self.data,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._client,))
        self._reader.start()
        self.wait_for_line("Initialization completed")
        self._rpc = GuiRpc(self.data)

    def _read_log(self, client: "subprocess.Popen[bytes]") -> None:
        assert client.stdout is not None
        for line in client.stdout:
            with self._changed:
                self.log.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()
        with self._changed:
            self.log.append("--- the client has ended ---")
            self._changed.notify_all()

    @property
    def client_pid(self) -> int:
        assert self._client is not None
        return self._client.pid

    def quit(self, limit: float = 90.0) -> None:
        """As `boinccmd --quit`: the client ends its task first. Returns when it has gone."""
        assert self._client is not None
        self.ask("<quit/>")
        self._client.wait(limit)
        self._end_client()

    def kill_client(self) -> None:
        """SIGKILL to the client alone."""
        assert self._client is not None
        self._client.kill()
        self._end_client()

    def _end_client(self) -> None:
        if self._rpc is not None:
            self._rpc.close()
            self._rpc = None
        if self._client is not None:
            self._client.kill()
            self._client.wait(LIMIT)
            if self._reader is not None:
                self._reader.join(LIMIT)
            assert self._client.stdout is not None
            self._client.stdout.close()
            self._client = None

    def close(self) -> None:
        """Ends all that was started from here, stopped or not; removes the files. Idempotent."""
        if self._words < 0:
            return
        if self._client is not None:
            self._client.kill()
        for _ in range(20):
            left = self.processes()
            if not left:
                break
            kill_all(left)
        # Only now: what holds the client's output would keep the reader waiting.
        self._end_client()
        os.close(self._words)
        self._words = -1
        shutil.rmtree(self.root, ignore_errors=True)
        assert self.processes() == []

    # What a volunteer's manager asks for.

    def ask(self, request: str) -> ElementTree.Element:
        assert self._rpc is not None, "the client does not run"
        return self._rpc.ask(request)

    def _tell_result(self, verb: str) -> None:
        self.ask(f"<{verb}><project_url>{MASTER_URL}</project_url><name>{RESULT}</name></{verb}>")

    def suspend(self) -> None:
        self._tell_result("suspend_result")

    def resume(self) -> None:
        self._tell_result("resume_result")

    def abort(self) -> None:
        self._tell_result("abort_result")

    def set_run_mode(self, mode: str) -> None:
        """`always`, `auto` or `never`, for good."""
        self.ask(f"<set_run_mode><{mode}/><duration>0</duration></set_run_mode>")

    def prefer(self, preferences: Preferences) -> None:
        """Other preferences from now on."""
        write_preferences(self.data, preferences)
        self.ask("<read_global_prefs_override/>")

    def notices(self) -> list[str]:
        """What is shown to the volunteer as a notice, and the client's messages."""
        answer = self.ask("<get_messages><seqno>0</seqno></get_messages>")
        return [(body.text or "").strip() for body in answer.iter("body")]

    def task(self) -> TaskState:
        answer = self.ask("<get_results><active_only>0</active_only></get_results>")
        (result,) = (found for found in answer.iter("result") if found.findtext("name") == RESULT)

        def number(path: str) -> float:
            return float(result.findtext(path) or 0)

        return TaskState(
            state=int(number("state")),
            exit_status=int(number("exit_status")),
            suspended=result.find("suspended_via_gui") is not None,
            process_state=int(number("active_task/active_task_state")),
            pid=int(number("active_task/pid")),
            slot=int(number("active_task/slot")),
            fraction_done=number("active_task/fraction_done"),
            cpu_time=number("active_task/current_cpu_time"),
            checkpoint_cpu_time=number("active_task/checkpoint_cpu_time"),
            elapsed_time=number("active_task/elapsed_time"),
            resident=number("active_task/working_set_size"),
        )

    # What a test waits for.

    def wait_for_line(self, pattern: str, limit: float = LIMIT) -> str:
        """The next line of the client's log that matches, after the one found last."""

        def found() -> bool:
            while self._seen < len(self.log):
                self._seen += 1
                if re.search(pattern, self.log[self._seen - 1]):
                    return True
            return False

        with self._changed:
            assert self._changed.wait_for(found, limit), self.story(f"no line with {pattern!r}")
            return self.log[self._seen - 1]

    def word(self, limit: float = LIMIT) -> str:
        """The next line that a program of the task said through `$RIG_WORDS`."""
        end = time.monotonic() + limit
        while b"\n" not in self._said:
            ready, _, _ = select.select([self._words], [], [], max(0, end - time.monotonic()))
            assert ready, self.story("the task says nothing")
            self._said += os.read(self._words, 1 << 16)
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def until(self, condition: Callable[[TaskState], object], limit: float = LIMIT) -> TaskState:
        """The task's state as soon as it is as wanted."""
        end = time.monotonic() + limit
        while not condition(task := self.task()):
            assert not task.is_over, self.story(f"over, and not as wanted: {task}")
            assert time.monotonic() < end, self.story(f"not as wanted: {task}")
            time.sleep(STEP)
        return task

    def running(self, limit: float = LIMIT) -> TaskState:
        return self.until(lambda task: task.process_state == EXECUTING, limit)

    def ended(self, limit: float = LIMIT) -> Ended:
        """Waits for the task's end, then ends the client to have its last word on it."""
        self.until(lambda task: task.is_over, limit)
        return self._last_word()

    def _last_word(self) -> Ended:
        """The client keeps stderr.txt of a task that is over, and writes it down as it ends."""
        self.quit()
        state = (self.data / "client_state.xml").read_text(errors="replace")
        (result,) = re.findall("<result>.*?</result>", state, re.DOTALL)
        status = _text(result, "exit_status") or "0"
        return Ended(
            int(_text(result, "state")),
            int(status),
            _text(result, "stderr_txt"),
            float(_text(result, "final_cpu_time") or 0),
            float(_text(result, "final_elapsed_time") or 0),
        )

    # What there is to see.

    def slot(self) -> Path:
        return self.data / "slots" / "0"

    def stderr(self) -> str:
        """The task's, so far."""
        file = self.slot() / "stderr.txt"
        return file.read_text(errors="replace") if file.exists() else ""

    def fractions(self, first_line: int = 0) -> list[float]:
        """What the task has reported of its progress, from that line of `log` on."""
        text = "\n".join(self.log[first_line:])
        return [float(found) for found in re.findall("<fraction_done>([^<]+)<", text)]

    def processes(self) -> list[int]:
        """Every process, not yet dead, that was started from here; the client not among them."""
        client = self._client.pid if self._client is not None else None
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            pid = int(entry.name)
            if pid not in (client, os.getpid()) and self._is_ours(entry):
                found.append(pid)
        return found

    def _is_ours(self, entry: Path) -> bool:
        try:
            mark = os.fsencode(f"{MARK}={self.root}")
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
            is_marked = mark in environment or os.fsencode(self.root) in command
            return is_marked and state_of(int(entry.name)) not in ("Z", "")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False

    def story(self, what: str) -> str:
        """`what`, with all that may explain it; for a failure: it may end the client."""
        stderr = self.stderr()
        if not stderr and self._rpc is not None:
            stderr = self._last_word().stderr
        return "\n".join([what, "--- the client's log", *self.log[-80:], "--- stderr.txt", stderr])


MakeRig = Callable[..., Rig]
"""Makes a rig that is not yet started; takes what `Rig` takes after its directory."""


def _text(xml: str, tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", xml, re.DOTALL)
    return found.group(1).strip() if found else ""
