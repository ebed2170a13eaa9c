"""The real BOINC client with one task and no server, for tests of what it starts.

Rig lays out a data directory (boincvm.boinc.client_directory), starts `boinc` on it, sends it the
requests of a volunteer's manager (gui_rpc.py), and leaves nothing behind. The task's programs can
send lines to the test: what they write to the FIFO that `$RIG_WORDS` names is returned by
`Rig.word`.
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

from boincvm.boinc.client_directory import (
    MASTER_URL,
    RESULT,
    Preferences,
    Work,
    lay_out,
    write_preferences,
)
from support.boinc.gui_rpc import GuiRpc
from support.boinc.watch import LIMIT, STEP, kill_all, state_of

CLIENT = "BOINCVM_TEST_CLIENT"
"""The environment variable that names a client other than the installed one."""
MARK = "BOINCVM_RIG"
"""An environment variable of every process that a rig has started."""

# States of a result and of its process, as the client numbers them (BOINC lib/common_defs.h).
COMPUTE_ERROR, FILES_UPLOADING, FILES_UPLOADED, ABORTED = 3, 4, 5, 6
UNINITIALIZED, EXECUTING, SUSPENDED = 0, 1, 9


@dataclass(frozen=True)
class TaskState:
    """What the client reports about the task. Times in seconds, sizes in bytes."""

    state: int
    """The result's state."""
    exit_status: int
    suspended: bool
    process_state: int
    """The state of the task's process. This and all later fields are 0 if it has no process."""
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
    """The task's end as the client reports it."""

    state: int
    exit_status: int
    stderr: str
    """The part of stderr.txt that it would report."""
    cpu_time: float
    """Seconds, as the project would see them."""
    elapsed_time: float
    """Seconds, as the project would see them."""

    @property
    def is_success(self) -> bool:
        """Tell whether it finished well; any outputs wait to be uploaded."""
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
        """Prepare a client; its tasks get a clean environment and `environment`."""
        self.root = root
        self.data = root / "boinc"
        self.home = root / "home"
        for directory in (self.data, self.home):
            directory.mkdir(parents=True)
        self.project = lay_out(self.data, work, preferences or Preferences())
        words = root / "words"
        os.mkfifo(words)
        self._words = os.open(words, os.O_RDWR | os.O_NONBLOCK)
        self._received = b""
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

    # Start and end of the client.

    def start(self) -> None:
        """Start the client, possibly again on what it left; return when it answers."""
        self._end_client()
        # The client is found by our own PATH; the task's may differ.
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
        """Quit as `boinccmd --quit` does, and wait: the client ends its task first."""
        assert self._client is not None
        self.ask("<quit/>")
        self._client.wait(limit)
        self._end_client()

    def kill_client(self) -> None:
        """Send SIGKILL to the client only."""
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
        """End all processes started from here, even stopped ones, and remove the files.
        Idempotent."""
        if self._words < 0:
            return
        if self._client is not None:
            self._client.kill()
        for _ in range(20):
            left = self.processes()
            if not left:
                break
            kill_all(left)
        # Only now, because the reader waits for all that have the client's output open.
        self._end_client()
        os.close(self._words)
        self._words = -1
        shutil.rmtree(self.root, ignore_errors=True)
        assert self.processes() == []

    # Requests of a volunteer's manager.

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
        """Set the run mode permanently: `always`, `auto` or `never`."""
        self.ask(f"<set_run_mode><{mode}/><duration>0</duration></set_run_mode>")

    def prefer(self, preferences: Preferences) -> None:
        """Change the preferences."""
        write_preferences(self.data, preferences)
        self.ask("<read_global_prefs_override/>")

    def notices(self) -> list[str]:
        """Return the notices that the volunteer sees, and the client's messages."""
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

    # Conditions that a test waits for.

    def wait_for_line(self, pattern: str, limit: float = LIMIT) -> str:
        """Wait for the next matching line of the client's log, after the one found last."""

        def found() -> bool:
            while self._seen < len(self.log):
                self._seen += 1
                if re.search(pattern, self.log[self._seen - 1]):
                    return True
            return False

        with self._changed:
            assert self._changed.wait_for(found, limit), self.story(f"no line with {pattern!r}")
            return self.log[self._seen - 1]

    def next_message(self, limit: float = LIMIT) -> str:
        """Wait for the next line that a program of the task wrote to `$RIG_WORDS`."""
        end = time.monotonic() + limit
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._words], [], [], max(0, end - time.monotonic()))
            assert ready, self.story("the task says nothing")
            self._received += os.read(self._words, 1 << 16)
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def until(self, condition: Callable[[TaskState], object], limit: float = LIMIT) -> TaskState:
        """Wait until the task's state fulfils `condition`, and return it."""
        end = time.monotonic() + limit
        while not condition(task := self.task()):
            assert not task.is_over, self.story(f"over, and not as wanted: {task}")
            assert time.monotonic() < end, self.story(f"not as wanted: {task}")
            time.sleep(STEP)
        return task

    def running(self, limit: float = LIMIT) -> TaskState:
        return self.until(lambda task: task.process_state == EXECUTING, limit)

    def ended(self, limit: float = LIMIT) -> Ended:
        """Wait for the task's end, then end the client to get its final report."""
        self.until(lambda task: task.is_over, limit)
        return self._final_report()

    def _final_report(self) -> Ended:
        """Read the final report; the client records a finished task's stderr.txt as it ends."""
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

    # Observations.

    def slot(self) -> Path:
        return self.data / "slots" / "0"

    def stderr(self) -> str:
        """Return the task's standard error so far."""
        try:
            return (self.slot() / "stderr.txt").read_text(errors="replace")
        except FileNotFoundError:
            return ""  # there is none yet, or the client has removed what the task left

    def fractions(self, first_line: int = 0) -> list[float]:
        """Return the progress that the task has reported, from that line of `log` on."""
        text = "\n".join(self.log[first_line:])
        return [float(found) for found in re.findall("<fraction_done>([^<]+)<", text)]

    def processes(self) -> list[int]:
        """List all living processes that were started from here, except the client."""
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
        """Return `what` with all that may explain a failure; this may end the client."""
        stderr = self.stderr()
        if not stderr and self._rpc is not None:
            stderr = self._final_report().stderr
        return "\n".join([what, "--- the client's log", *self.log[-80:], "--- stderr.txt", stderr])


MakeRig = Callable[..., Rig]
"""Makes a rig that is not yet started, from the arguments of `Rig` except its directory."""


def _text(xml: str, tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", xml, re.DOTALL)
    return found.group(1).strip() if found else ""
