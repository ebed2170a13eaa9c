"""The helper process that receives a machine's memory while the machine runs.

Its one argument is a JSON object:

    stream, result    descriptors (shared_pipes.py)
    directory         the machine's
    memory, base      the file to write, and the previous one or null
    idle              whether to yield to all other work
    seal              disk layers that are final when the stream ends
    merge             layers to be merged, `into` a new file over `backing`; or null

On `result` it writes `{"ready": true}` at once, and at the end what it has written, or
`{"error": …, "errno": …}`: each as one line of JSON.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from boincvm.file_digest import digest_of
from boincvm.host.files import sync_directory, sync_file
from boincvm.host.processes import lower_priority, use_idle_io
from boincvm.host.shared_pipes import open_given
from boincvm.hypervisor.qcow2_merge import MergeError, merge
from boincvm.hypervisor.qemu.memory_file import MemoryFileError, MemoryWriter, Summary
from boincvm.hypervisor.qemu.stream import StreamError, read_stream

_BUFFER = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """Run the helper and return its exit status."""
    request = json.loads(arguments[0])
    result = int(request["result"])
    try:
        if request["idle"]:
            _give_way()
        _report(result, {"ready": True})
        _report(result, _receive(request))
    except BrokenPipeError:
        return 1  # nobody waits for the result any more
    except (OSError, StreamError, MemoryFileError, MergeError, MemoryError, ValueError) as error:
        number = error.errno or 0 if isinstance(error, OSError) else 0
        with contextlib.suppress(BrokenPipeError):
            _report(result, {"error": str(error) or "there is too little memory", "errno": number})
        return 1
    return 0


def _report(result: int, message: dict[str, object]) -> None:
    os.write(result, json.dumps(message).encode() + b"\n")


def _give_way() -> None:
    """Yield to all other work on the processors and the disk."""
    lower_priority()
    use_idle_io()


def _receive(request: dict[str, object]) -> dict[str, object]:
    directory, name = Path(str(request["directory"])), str(request["memory"])
    base = request["base"]
    seal = request["seal"]
    try:
        written = _write(directory, name, None if base is None else str(base), request["stream"])
        layers = [*(seal if isinstance(seal, list) else ()), *_merge(directory, request["merge"])]
        files = _seal(directory, layers)
        # Verify what is on the disk, not what we meant to write.
        size, digest = digest_of(directory / name, drop_cache=True)
        if (size, digest) != (written.written, written.digest):
            raise MemoryFileError(f"{name} differs on disk from what was written")
    except BaseException as error:
        if not isinstance(error, FileExistsError):  # then it is not ours
            (directory / name).unlink(missing_ok=True)
        raise
    files[name] = {"size": size, "digest": digest}
    sync_directory(directory)
    return {
        "files": files,
        "chain": list(written.chain),
        "live": written.live,
        "written": written.written,
    }


def _write(directory: Path, name: str, base: str | None, stream: object) -> Summary:
    writer = MemoryWriter(directory, name, base)
    try:
        with open_given(int(str(stream)), _BUFFER) as source:
            return writer.finish(read_stream(source, writer))
    finally:
        writer.close()


def _merge(directory: Path, wanted: object) -> list[str]:
    """Merge the layers and return the name of the merged file, if one is wanted."""
    if not isinstance(wanted, dict):
        return []
    layers = [directory / str(name) for name in wanted["layers"]]
    into = str(wanted["into"])
    try:
        merge(layers, directory / into)
    except BaseException:
        (directory / into).unlink(missing_ok=True)
        raise
    return [into]


def _seal(directory: Path, names: Iterable[object]) -> dict[str, dict[str, object]]:
    """Sync the files to the disk and return their sizes and digests."""
    sealed: dict[str, dict[str, object]] = {}
    for name in map(str, names):
        sync_file(directory / name, follow_links=False)
        size, digest = digest_of(directory / name, drop_cache=True)
        sealed[name] = {"size": size, "digest": digest}
    return sealed
