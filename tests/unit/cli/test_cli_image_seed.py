"""`boincvm image seed`: what it writes, by the reader of the guest, and what it refuses."""

import json
import os
import stat
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode
from boincvm_cloud.disc import Disc
from boincvm_cloud.seed import Seed, read_seed


def read(path: Path) -> Seed:
    """Return the seed as a guest reads it, of which it ignores nothing."""
    ignored: list[str] = []
    file = os.open(path, os.O_RDONLY)
    try:
        seed = read_seed(Disc(file), ignored.append)
    finally:
        os.close(file)
    assert ignored == []
    return seed


def test_name_files_and_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, script = tmp_path / "a.iso", tmp_path / "do:it"
    script.write_bytes(b"#!/bin/sh\n\xff")
    script.chmod(0o755)
    options = ("--hostname", "a", "--file", f"{script}:/opt/do", "--run", "/opt/do", "--run", "ls")
    assert main(["image", "seed", *options, "--power-off", str(path)]) == 0
    assert f"the seed has been written: {path}\n" in capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    seed = read(path)
    assert [(file.path, file.content, file.mode) for file in seed.files] == [
        ("/opt/do", b"#!/bin/sh\n\xff", 0o755)
    ]
    assert seed.commands == [["/bin/sh", "-c", "/opt/do"], ["/bin/sh", "-c", "ls"]]
    assert (seed.host_name, seed.is_powered_off) == ("a", True)
    assert seed.instance.startswith("boincvm-")
    assert main(["image", "seed", str(path)]) == ExitCode.USAGE
    former = seed.instance
    assert main(["image", "seed", "--force", "--json", str(path)]) == 0
    assert read(path).instance != former
    assert main(["image", "seed", "--force", "--instance-id", "i-1", str(path)]) == 0
    assert (read(path).instance, read(path).commands) == ("i-1", [])


@pytest.mark.parametrize(
    ("host_name", "options", "name"),
    [
        ("", "", "lab"),
        ("a", "", "lab.a"),
        ("lab.7", "", "lab.7"),
        ("a", "--id lab.x", "lab.x"),
    ],
)
def test_a_guest(
    host_name: str, options: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.iso"
    (tmp_path / "passcode").write_text("secret\n")
    (tmp_path / "ca.pem").write_text("the authority")
    broker = ["--broker", "stomp://lab@big:7", "--passcode-file", str(tmp_path / "passcode")]
    more = ["--broker-ca", str(tmp_path / "ca.pem"), "--label", "site=x", *options.split()]
    words = ["image", "seed", "--hostname", host_name, *broker, *more, str(path)]
    assert main(words) == 0
    assert f"the machine becomes the guest {name}" in capsys.readouterr().out
    files = {file.path: file for file in read(path).files}
    settings = files["/var/lib/boincvm/guest.json"]
    assert settings.mode == 0o600
    assert json.loads(settings.content) == {
        "login": "lab", "passcode": "secret", "host": "big", "port": 7, "dialect": "embedded",
        "authority": "/var/lib/boincvm/broker.pem", "id": name, "labels": {"site": "x"},
    }  # fmt: skip
    assert files["/var/lib/boincvm/broker.pem"].content == b"the authority"
    assert files["/var/lib/cloud/scripts/per-boot/50-boincvm-guest"].mode == 0o755


def test_a_passcode_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "passcode").write_text("secret\n")
    broker = ["--broker", "stomp://lab@big:7", "--passcode-file", str(tmp_path / "passcode")]
    assert main(["image", "seed", *broker, str(tmp_path / "a.iso")]) == 0
    assert "warning: without --broker-ca" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--hostname -a", "expected"),
        ("--hostname a_b", "up to 64 of"),
        ("--instance-id ä", "printable characters"),
        ("--power-off", "without a command"),
        ("--file /etc/hosts", "expected SRC:DST"),
        ("--file /etc/hosts:opt", "an absolute path"),
        ("--file /etc/hosts:/opt/../x", "an absolute path"),
        ("--file /etc:/opt/x", "cannot be read"),
        ("--file /none:/opt/x", "cannot be read"),
        ("--id lab.a", "--broker is missing"),
        ("--broker stomp://lab@big", "--passcode-file"),
    ],
)
def test_what_is_refused(
    options: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.iso"
    try:
        code = main(["image", "seed", *options.split(), str(path)])
    except SystemExit as error:
        code = int(str(error.code))
    assert code in (ExitCode.USAGE, ExitCode.INPUT_FILE, 2)
    assert why in capsys.readouterr().err
    assert not path.exists()


def test_files_that_are_too_large(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate((8 << 20) + 1)
    path = tmp_path / "a.iso"
    assert main(["image", "seed", "--file", f"{large}:/x", str(path)]) == ExitCode.INPUT_FILE
    with large.open("wb") as file:
        file.truncate(7 << 20)
    twice = ["--file", f"{large}:/x", "--file", f"{large}:/y", str(path)]
    assert main(["image", "seed", *twice]) == ExitCode.USAGE
    assert "more than 8 MiB" in capsys.readouterr().err
