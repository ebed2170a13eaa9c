"""`boincvm create`: the scripts and labels that it refuses before it asks the controller."""

import os
from pathlib import Path

import pytest

from boincvm.cli import create
from boincvm.errors import InputFileError, UsageError


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n\t\n", "it is empty"),
        (b"#!/bin/sh\r\ntrue\r\n", "as Windows writes texts"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "as Windows writes texts"),
        (b"true\0", "not a text"),
        (b"\xff\xfe", "not a text"),
        (b"#" * (1 << 16) + b"\n", "more than 64 KiB"),
        (b"#" * (1 << 21), "more than 64 KiB"),
    ],
)
def test_a_script_that_cannot_run(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "set-up.sh"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=why) as refused:
        create._script(path)
    assert refused.value.hint


def test_a_script_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, why in (("none", "No such file"), (".", "not a regular file"), ("fifo", "regular")):
        with pytest.raises(InputFileError, match=why):
            create._script(tmp_path / name)


def test_a_script_and_a_link_to_it(tmp_path: Path) -> None:
    text = "#!/bin/sh\necho ü\n" + "#" * ((64 << 10) - 18)
    (tmp_path / "script").write_text(text)
    (tmp_path / "link").symlink_to("script")
    assert len(text.encode()) == 64 << 10
    assert create._script(tmp_path / "script") == create._script(tmp_path / "link") == text


def test_labels() -> None:
    assert create.labels_of(["a=1", "b=", "c=x=y", "a=1"]) == {"a": "1", "b": "", "c": "x=y"}
    for texts in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(UsageError):
            create.labels_of(texts)
