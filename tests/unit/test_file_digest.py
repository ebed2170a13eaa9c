"""The digest of a file's content."""

import errno
import hashlib
import os
import socket
from pathlib import Path

import pytest

from boincvm.file_digest import digest_of

EMPTY = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
ABC = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
LARGEST_READ = 1 << 20


@pytest.mark.parametrize("drop_cache", [False, True])
@pytest.mark.parametrize(("content", "digest"), [(b"", EMPTY), (b"abc", ABC)])
def test_known_digests(tmp_path: Path, content: bytes, digest: str, drop_cache: bool) -> None:
    """Compare with the output of `b2sum -l 256`."""
    path = tmp_path / "file"
    path.write_bytes(content)
    assert digest_of(path, drop_cache=drop_cache) == (len(content), digest)


@pytest.mark.parametrize("more", [-1, 0, 1, LARGEST_READ])
def test_files_of_more_than_one_read(tmp_path: Path, more: int) -> None:
    path = tmp_path / "file"
    content = os.urandom(LARGEST_READ + more)
    path.write_bytes(content)
    digest = hashlib.blake2b(content, digest_size=32).hexdigest()
    assert digest_of(path) == (len(content), digest)
    assert digest_of(path, drop_cache=True) == (len(content), digest)


def test_the_cache_is_dropped_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    advise = os.posix_fadvise

    def record(descriptor: int, *advice: int) -> None:
        advise(descriptor, *advice)
        asked.append(advice)  # type: ignore[arg-type]

    monkeypatch.setattr("os.posix_fadvise", record)
    (tmp_path / "file").write_bytes(b"abc")
    digest_of(tmp_path / "file")
    assert asked == []
    digest_of(tmp_path / "file", drop_cache=True)
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)]


def test_a_soft_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number says which
        digest_of(tmp_path / "link")
    assert caught.value.errno == errno.ELOOP


@pytest.mark.timeout(10)  # it could wait for somebody who writes
def test_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        digest_of(tmp_path / "fifo")


def test_a_directory_a_device_and_a_socket_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in (".", "/dev/null", "socket"):
            with pytest.raises(OSError, match=r"directory|not a regular file|No such device"):
                digest_of(Path(name))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_of(tmp_path / "nothing")


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    os.mkfifo(tmp_path / "fifo")
    before = os.listdir("/proc/self/fd")
    digest_of(tmp_path / "file", drop_cache=True)
    with pytest.raises(OSError, match="not a regular file"):
        digest_of(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        digest_of(tmp_path)
    assert os.listdir("/proc/self/fd") == before
