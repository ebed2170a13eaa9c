"""Files in memory on Linux and macOS; import it through `memory_files`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

assert sys.platform != "win32"


def create(name: str) -> int:
    """Create an empty file that vanishes with its last descriptor. Raises OSError."""
    if sys.platform == "linux":
        return os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        import tempfile

        descriptor, path = tempfile.mkstemp(prefix=name)  # on a disk, but nameless
        os.unlink(path)  # noqa: PTH108
        return descriptor


def path_of(descriptor: int) -> str:
    """Return the path by which a child that inherited the descriptor can open its file."""
    return f"/dev/fd/{descriptor}"


@contextmanager
def for_child(name: str, content: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the path by which a child can read `content`, and the descriptors it must inherit.

    Raises OSError.
    """
    descriptor = create(name)
    try:
        os.write(descriptor, content)
        yield path_of(descriptor), (descriptor,)
    finally:
        os.close(descriptor)


def copy(path: Path, name: str) -> int:
    """Create a file in memory with the content of `path`, keeping holes. Raises OSError."""
    if sys.platform == "linux":
        made = create(name)
        source = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(source).st_size
            os.ftruncate(made, size)
            at = 0
            while at < size:
                try:
                    begin = os.lseek(source, at, os.SEEK_DATA)
                except OSError:
                    break  # only a hole follows
                at = os.lseek(source, begin, os.SEEK_HOLE)
                os.lseek(made, begin, os.SEEK_SET)
                while begin < at:
                    begin += os.sendfile(made, source, begin, at - begin)
        except BaseException:
            os.close(made)
            raise
        finally:
            os.close(source)
        return made
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("copies of files in memory")
