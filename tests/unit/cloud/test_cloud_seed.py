"""Seeds: what a guest reads of them, what it refuses, and what it makes of them."""

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.image.cloud.disc import disc_of
from boincvm_cloud import context
from boincvm_cloud.disc import Disc
from boincvm_cloud.seed import Seed, SeedError, read_seed

META_DATA = b"instance-id: i-1\n"
CLOUD_CONFIG = b"#cloud-config\n"


def seed_of(
    directory: Path, user_data: bytes, meta_data: bytes = META_DATA
) -> tuple[Seed, list[str]]:
    """Return what the guest reads of such a seed, and what it ignores."""
    path = directory / "seed"
    path.write_bytes(disc_of("cidata", {"meta-data": meta_data, "user-data": user_data}))
    ignored: list[str] = []
    file = os.open(path, os.O_RDONLY)
    try:
        return read_seed(Disc(file), ignored.append), ignored
    finally:
        os.close(file)


def config(**table: object) -> bytes:
    return CLOUD_CONFIG + json.dumps(table).encode()


def test_a_script(tmp_path: Path) -> None:
    script = b"#!/bin/sh\necho hello\n"
    meta_data = b'# ours\ninstance-id: "i-7"\nlocal-hostname: one.two\npublic-keys: x\n\n'
    seed, ignored = seed_of(tmp_path, script, meta_data)
    assert (seed.instance, seed.host_name, seed.script) == ("i-7", "one.two", script)
    assert ignored == ["'public-keys' in the seed's meta-data is ignored"]
    assert (seed.files, seed.commands, seed.is_powered_off) == ([], [], False)
    assert seed_of(tmp_path, b"\n")[0].script == b""


def test_a_cloud_config(tmp_path: Path) -> None:
    content = bytes(range(256))
    encoded = base64.b64encode(content).decode()
    files = [
        {"path": "/opt/a/b", "content": encoded, "encoding": "b64", "permissions": "0600"},
        {"path": "/etc/c", "content": "text\n", "owner": "root:root"},
    ]
    seed, ignored = seed_of(
        tmp_path,
        config(
            hostname="later", write_files=files, runcmd=["echo $HOME", ["ls", "/"]],
            power_state={"mode": "poweroff"}, packages=["vim"],
        ),
        b'{"instance-id": "i-2", "local-hostname": "first"}',
    )  # fmt: skip
    assert [(file.path, file.content, file.mode) for file in seed.files] == [
        ("/opt/a/b", content, 0o600),
        ("/etc/c", b"text\n", 0o644),
    ]
    assert seed.commands == [["/bin/sh", "-c", "echo $HOME"], ["ls", "/"]]
    assert (seed.instance, seed.host_name, seed.is_powered_off) == ("i-2", "later", True)
    assert ignored == [
        "'packages' in the seed's user-data is ignored",
        "'owner' in the seed's write_files is ignored",
    ]
    seed, ignored = seed_of(tmp_path, config(power_state={"mode": "reboot"}))
    assert not seed.is_powered_off
    assert len(ignored) == 1


@pytest.mark.parametrize(
    ("user_data", "why"),
    [
        (b"hello", "neither a script"),
        (b"\x1f\x8b", "neither a script"),
        (b"#cloud-config\nhostname: a\n", "YAML: write JSON"),
        (b"#cloud-config\n{", "cannot be read"),
        (b"#cloud-config\n{\xff}", "not UTF-8"),
        (CLOUD_CONFIG + b'{"a":' + b"[" * 100_000, "too deep"),
        (config(hostname="a b"), "host name"),
        (config(hostname=["a"]), "host name"),
        (config(runcmd="ls"), "no list"),
        (config(runcmd=["ls"] * 1001), "no list of at most 1000"),
        (config(runcmd=[["ls", 1]]), "neither a text nor a list"),
        (config(runcmd=[[]]), "neither a text nor a list"),
        (config(runcmd=["a\0b"]), "neither a text nor a list"),
        (config(power_state=[]), "power_state"),
        (config(write_files=["x"]), "no object"),
        (config(write_files=[{"content": "x"}]), "no absolute path"),
        (config(write_files=[{"path": "/a/../b"}]), "no absolute path"),
        (config(write_files=[{"path": "a"}]), "no absolute path"),
        (config(write_files=[{"path": "/"}]), "no absolute path"),
        (config(write_files=[{"path": "/a\0"}]), "no absolute path"),
        (config(write_files=[{"path": "/a", "content": 1}]), "no text"),
        (config(write_files=[{"path": "/a", "permissions": 420}]), "no octal"),
        (config(write_files=[{"path": "/a", "permissions": "77777"}]), "no octal"),
        (config(write_files=[{"path": "/a", "content": "*", "encoding": "b64"}]), "not base64"),
        (config(write_files=[{"path": "/a", "encoding": "gzip"}]), "neither b64"),
        (config(write_files=[{"path": "/a", "encoding": []}]), "neither b64"),
    ],
)  # fmt: skip
def test_user_data_that_is_refused(user_data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(SeedError, match=why):
        seed_of(tmp_path, user_data)


@pytest.mark.parametrize(
    ("meta_data", "why"),
    [
        (b"instance-id: [a]\n", "line 1 .* write JSON"),
        (b"a:\n  - b\n", "line 1 .* write JSON"),
        (b"[]", "write JSON"),
        (b'{"instance-id": 1}', "instance-id"),
        (b'{"instance-id": "a b"}', "instance-id"),
        (b"instance-id: \n", "instance-id"),
        (b"local-hostname: -a\n", "host name"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_meta_data_that_is_refused(meta_data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(SeedError, match=why):
        seed_of(tmp_path, b"", meta_data)


def test_a_disc_without_meta_data(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    path.write_bytes(disc_of("cidata", {"user-data": b""}))
    file = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(SeedError, match="no meta-data"):
            read_seed(Disc(file), print)
    finally:
        os.close(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.dictionaries(
        st.sampled_from(["hostname", "power_state", "runcmd", "write_files", "x"]),
        JSON | st.lists(st.dictionaries(st.sampled_from(["path", "content", "encoding"]), JSON)),
    )
)
def test_any_json(tmp_path: Path, table: dict[str, object]) -> None:
    """It is read or refused."""
    try:
        seed, _ = seed_of(tmp_path, config(**table))
    except SeedError:
        return
    assert all(file.path.startswith("/") for file in seed.files)
    assert all(command for command in seed.commands)


def test_files_and_commands_are_for_a_new_machine(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    seed, _ = seed_of(
        tmp_path,
        config(
            write_files=[{"path": "/opt/x", "content": "1", "permissions": "0640"}],
            runcmd=[["ls"]],
        ),
    )
    assert context.instance(str(root)) is None
    assert context.apply(seed, str(root)) == [["ls"]]
    assert (root / "opt/x").read_text() == "1"
    assert stat.S_IMODE((root / "opt/x").stat().st_mode) == 0o640
    assert context.instance(str(root)) == "i-1"
    (root / "opt/x").write_text("2")
    assert context.apply(seed, str(root)) == []
    assert (root / "opt/x").read_text() == "2"
    other, _ = seed_of(tmp_path, b"#!/bin/sh\ntrue\n", b"instance-id: i-2\n")
    (script,) = context.apply(other, str(root))
    assert script == [f"{root}{context.STATE}/user-data"]
    assert os.access(script[0], os.X_OK)
    assert context.instance(str(root)) == "i-2"


def test_scripts_of_each_boot(tmp_path: Path) -> None:
    assert context.scripts_of_each_boot(str(tmp_path)) == []
    directory = tmp_path / context.EACH_BOOT.strip("/")
    directory.mkdir(parents=True)
    for name, mode in (("2", 0o755), ("1", 0o755), ("0", 0o644)):
        (directory / name).touch(mode)
    assert context.scripts_of_each_boot(str(tmp_path)) == [f"{directory}/1", f"{directory}/2"]
