"""Try an app version under a real BOINC client, without a project, a server or a network.

The client gets a data directory of its own (client_directory.py), in which one task waits for it.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from boincvm import lenient_xml
from boincvm.boinc.client_directory import (
    RESULT,
    Output,
    Preferences,
    TaskFile,
    Work,
    lay_out,
)
from boincvm.errors import HostError, InputFileError
from boincvm.host.files import read_regular
from boincvm.lenient_xml import Element, XmlError

CLIENT = "boinc"
"""The program of the package boinc-client."""
REQUESTER = "boinccmd"
"""The program of the same package that passes requests to a client."""
VERSION_FILE = "version.xml"
_END_LIMIT = 90.0
"""Seconds for the client to end; it waits up to 60 for its task."""
_REQUEST_LIMIT = 20.0
"""Seconds for the client to answer."""
_FINISHED = f"Computation for task {RESULT} finished"
_POSTPONED = re.compile(rf"[Tt]ask(?: {RESULT})? postponed.*")
_FILE = re.compile(r"\b(?:in|out)put_\d+\b")
"""Names of a task's files in the client's directory."""
_LARGEST_STATE = 16 << 20
_COMPLETE = ("4", "5")
"""The states of a result whose files are being uploaded, or have been."""


class AppVersion(NamedTuple):
    """What version.xml says, with the files."""

    files: list[TaskFile]
    """The main program first."""
    api_version: str
    is_wrapper: bool


class Ended(NamedTuple):
    """How the task has ended."""

    status: int
    """Its exit status for BOINC; 0 for success."""
    stderr: str
    """What the project would be sent."""
    postponed: str = ""
    """The client's line about it, if the task wants to be started again later."""
    is_complete: bool = True
    """Whether the client counts it as done; it does not if an output file is missing."""
    missing: tuple[str, ...] = ()
    """Outputs that the task has not made."""


def read_version(directory: Path) -> AppVersion:
    """Read an app version as `update_versions` takes it. Raises InputFileError."""
    path = directory / VERSION_FILE
    try:
        root = lenient_xml.parse(read_regular(path, lenient_xml.LARGEST_DOCUMENT + 1))
    except OSError as error:
        raise InputFileError(
            f"{path} cannot be read: {error.strerror}",
            hint="name the directory of an app version, like examples/boinc-ecm/app",
        ) from error
    except XmlError as error:
        raise InputFileError(f"{path}: {error}") from error
    found = [
        (_file(directory, child), _child(child, "main_program") is not None)
        for child in root.children
        if child.name == "file"
    ]
    mains = [file for file, is_main in found if is_main]
    if len(mains) != 1:
        raise InputFileError(f"{path} has {len(mains)} files with <main_program/>, expected one")
    others = [file for file, is_main in found if not is_main]
    api_version = _text(root, "api_version") or "7.20.0"
    return AppVersion([*mains, *others], api_version, _child(root, "is_wrapper") is not None)


def _file(directory: Path, element: Element) -> TaskFile:
    name = _text(element, "physical_name")
    path = directory / name
    if not name or "/" in name or not path.is_file():
        raise InputFileError(f"the app version's file {str(path)!r} does not exist")
    is_copied = _child(element, "copy_file") is not None
    # As update_versions does, which makes every file executable that is so here.
    is_executable = path.stat().st_mode & 0o100 != 0
    return TaskFile(name, path, _text(element, "logical_name"), is_copied, is_executable)


def _child(element: Element, name: str) -> Element | None:
    return next((child for child in element.children if child.name == name), None)


def _text(element: Element, name: str) -> str:
    found = _child(element, name)
    return "" if found is None else found.text


def run_trial(
    version: AppVersion,
    *,
    inputs: Sequence[tuple[str, Path]],
    outputs: Sequence[str],
    command_line: str,
    destination: Path,
    show: Callable[[str], None],
) -> Ended:
    """Run one task of an app version under the client to its end, or until it is postponed.

    `inputs`: logical names and files; `outputs`: logical names of files, which are copied to
    `destination`. `show` is called with the client's lines about the task. Raises HostError,
    OSError.
    """
    client = shutil.which(CLIENT)
    if client is None:
        raise HostError("there is no BOINC client here", hint="apt-get install boinc-client")
    work = Work(
        version.files,
        [TaskFile(f"input_{at}", path, name) for at, (name, path) in enumerate(inputs)],
        [Output(f"output_{at}", name) for at, name in enumerate(outputs)],
        command_line=command_line,
        api_version=version.api_version,
        is_wrapper=version.is_wrapper,
    )
    with tempfile.TemporaryDirectory(prefix="boincvm-") as temporary:
        data = Path(temporary)
        project = lay_out(data, work, Preferences(), ("task",))
        names = {file.name: file.open_name for file in work.inputs}
        names |= {file.name: file.open_name for file in work.outputs}
        postponed = _run_client(client, data, lambda line: show(_with_logical_names(line, names)))
        ended = (
            Ended(0, _stderr_so_far(data), postponed=postponed)
            if postponed
            else _final_report(data)
        )
        for at, name in enumerate(outputs):
            if (project / f"output_{at}").is_file():
                shutil.copy(project / f"output_{at}", destination / name)
            else:
                ended = ended._replace(missing=(*ended.missing, name))
    return ended


def _with_logical_names(line: str, names: Mapping[str, str]) -> str:
    """Return a line of the client's with the names by which the user knows the task's files."""
    return _FILE.sub(lambda found: names.get(found[0], found[0]), line)


def _run_client(client: str, data: Path, show: Callable[[str], None]) -> str:
    """Run the client until the task has ended; return its line if the task is postponed."""
    options = ("--dir", str(data), "--gui_rpc_unix_domain", "--allow_multiple_clients")
    process = subprocess.Popen(
        [client, *options],
        cwd=data,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for us; we end the client
    )
    with process:
        try:
            postponed = _watch(process.stdout or (), show)
        finally:
            has_saved = _end(process, data)
    if postponed is None:
        raise HostError(
            f"the BOINC client ended by itself, with {process.returncode}",
            hint=f"does it run at all? {CLIENT} --version",
        )
    if not has_saved:
        raise HostError(
            f"the BOINC client did not end within {_END_LIMIT:.0f} s and was killed",
            hint="what it knew of the task is lost; run it again",
        )
    return postponed


def _watch(lines: Iterable[bytes], show: Callable[[str], None]) -> str | None:
    """Read the client's lines until the task has ended, or is postponed: return the line then.

    Returns None if there are no more lines.
    """
    for line in lines:
        text = line.decode(errors="replace").rstrip()
        if found := _POSTPONED.search(text):
            return found[0]
        if RESULT in text:
            show(text)
        if _FINISHED in text:
            return ""
    return None


def _end(process: subprocess.Popen[bytes], data: Path) -> bool:
    """Let the client save its state and end; kill it and return False if it takes too long."""
    if process.poll() is None and not _ask_to_quit(data):
        process.terminate()
    try:
        process.communicate(timeout=_END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return False
    return True


def _ask_to_quit(data: Path) -> bool:
    """Ask the client to save its state and to end; return False if it cannot be asked.

    A signal would do, but the client's handler prints a message (client/main.cpp): a client that
    is allocating memory at that moment waits for itself for ever, and its state is not saved.
    """
    requester = shutil.which(REQUESTER)
    if requester is None:
        return False
    try:
        asked = subprocess.run(
            [requester, "--unix_domain", "--quit"],
            cwd=data,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_REQUEST_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _final_report(data: Path) -> Ended:
    """Read what the client has recorded about the task. Raises HostError."""
    try:
        content = read_regular(data / "client_state.xml", _LARGEST_STATE)
        root = lenient_xml.parse(content, maximum=_LARGEST_STATE)
    except (OSError, XmlError) as error:
        raise HostError(f"the client's state cannot be read: {error}") from error
    result = _child(root, "result")
    if result is None:
        raise HostError("the client has forgotten the task")
    status = _text(result, "exit_status")
    # The client puts its own message before what the task wrote.
    report = _text(result, "stderr_out")
    stderr = report.rpartition("<stderr_txt>")[2].removesuffix("</stderr_txt>").strip()
    if re.fullmatch(r"-?\d{1,10}", status, re.ASCII) is None:
        raise HostError(
            "the client has recorded no exit status of the task",
            hint=f"is it a BOINC client? {CLIENT} --version",
        )
    # Files that are missing leave the exit status as it is.
    is_complete = _text(result, "state") in _COMPLETE
    return Ended(int(status), stderr, is_complete=is_complete)


def _stderr_so_far(data: Path) -> str:
    try:
        return read_regular(data / "slots/0/stderr.txt", 1 << 20).decode(errors="replace").strip()
    except OSError:
        return ""
