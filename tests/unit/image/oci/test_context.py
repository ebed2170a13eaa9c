"""The context of a Dockerfile, which may be anybody's directory."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from boincvm.errors import InputFileError
from boincvm.image.oci import context
from boincvm.image.oci.context import Contents, add_context, read_dockerfile
from boincvm.image.oci.ignore_rules import IgnoreRules


def packed(directory: Path, rules: bytes = b"") -> tuple[Contents, dict[str, tarfile.TarInfo]]:
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape"
    ) as archive:
        contents = add_context(archive, "context", directory, IgnoreRules(rules))
    file.seek(0)
    with tarfile.open(fileobj=file, errors="surrogateescape") as archive:
        return contents, {member.name: member for member in archive.getmembers()}


def refusal(directory: Path) -> str:
    with pytest.raises(InputFileError) as caught:
        packed(directory)
    return caught.value.message


def test_what_is_sent(tmp_path: Path) -> None:
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "sub/run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "sub/run.sh").chmod(0o4755)
    os.utime(tmp_path / "sub/run.sh", (86400, 86400))
    (tmp_path / "sub/left.o").touch()
    (tmp_path / "Dockerfile").touch()
    odd = tmp_path / os.fsdecode(b"odd\xff\n\x1b name" + b"y" * 200)
    odd.write_bytes(b"12345")
    contents, members = packed(tmp_path, b"**/*.o\nDockerfile")
    assert sorted(members) == sorted(
        ["context", f"context/{odd.name}", "context/sub", "context/sub/deep", "context/sub/run.sh"]
    )
    assert contents == Contents(4, 15)
    script = members["context/sub/run.sh"]
    assert (script.mode, script.uid, script.gid, script.mtime) == (0o755, 0, 0, 86400)


def test_exceptions_within_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/kept", "a/b/left", "a/left"):
        (tmp_path / name).touch()
    _, members = packed(tmp_path, b"a\n!a/b/kept")
    assert sorted(members) == ["context", "context/a/b/kept"]


def test_links_travel_as_links_and_none_is_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("the key")
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").symlink_to(secret / "key")
    (directory / "dir").symlink_to("../secret")
    (directory / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("context")
    contents, members = packed(tmp_path / "link")
    assert contents == Contents(3, 0)
    assert {name: member.linkname for name, member in members.items() if member.issym()} == {
        "context/file": str(secret / "key"),
        "context/dir": "../secret",
        "context/loop": "loop",
    }


def test_what_is_neither_file_nor_directory_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is neither a file, nor a directory, nor a link" in refusal(tmp_path)
    assert packed(tmp_path, b"pipe")[0] == Contents(0, 0)


def test_no_more_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / name).write_bytes(b"12")
    monkeypatch.setattr(context, "MOST_FILES", 2)
    assert "more than 2 files" in refusal(tmp_path)
    monkeypatch.setattr(context, "MOST_FILES", 3)
    monkeypatch.setattr(context, "MOST_BYTES", 5)
    assert "more than 5 B" in refusal(tmp_path)
    monkeypatch.setattr(context, "MOST_BYTES", 6)
    assert packed(tmp_path)[0] == Contents(3, 6)
    (tmp_path / "/".join("d" * 70)).mkdir(parents=True)
    monkeypatch.setattr(context, "MOST_FILES", 1000)
    assert "directories deep" in refusal(tmp_path)


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_root: int, path: bytes) -> int:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "mine").touch()
    monkeypatch.setattr(context.filetree, "open_file", fail)
    message = refusal(tmp_path)
    assert "mine" in message
    assert "Permission denied" in message


def test_which_dockerfile_and_which_rules(tmp_path: Path) -> None:
    directory = tmp_path / "context"
    directory.mkdir()
    with pytest.raises(InputFileError, match="has no Dockerfile"):
        read_dockerfile(directory)
    (directory / "Containerfile").write_bytes(b"FROM b")
    assert read_dockerfile(directory).text == b"FROM b"
    (directory / "Dockerfile").write_bytes(b"FROM a")
    (directory / ".dockerignore").write_bytes(b"a\n")
    found = read_dockerfile(directory)
    assert found.text == b"FROM a"
    assert found.rules.fitting(["a"])
    other = tmp_path / "other.Dockerfile"
    other.write_bytes(b"FROM c")
    found = read_dockerfile(directory, other)
    assert found.text == b"FROM c"
    assert found.rules.fitting(["a"])
    (tmp_path / "other.Dockerfile.dockerignore").write_bytes(b"b\n")
    found = read_dockerfile(directory, other)
    assert not found.rules.fitting(["a"])
    assert found.rules.fitting(["b"])


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
def test_what_nobody_has_named_lies_in_the_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("a")
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch")
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to("../secret")
    with pytest.raises(InputFileError, match="leads out of its directory"):
        read_dockerfile(directory)
    (directory / name).unlink()
    (directory / name).symlink_to("real")
    (directory / "real").write_text("FROM x")
    read_dockerfile(directory)
    (directory / "real").unlink()
    (directory / "real").symlink_to(name)
    with pytest.raises(InputFileError):
        read_dockerfile(directory)


def test_dockerfiles_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="is no directory with a Dockerfile"):
        read_dockerfile(tmp_path / "missing")
    os.mkfifo(tmp_path / "Dockerfile")
    with pytest.raises(InputFileError, match="cannot be read"):
        read_dockerfile(tmp_path)
    (tmp_path / "Dockerfile").unlink()
    (tmp_path / "Dockerfile").write_bytes(b"#" * (context.MOST_TEXT + 1))
    with pytest.raises(InputFileError, match="more than 1"):
        read_dockerfile(tmp_path)
