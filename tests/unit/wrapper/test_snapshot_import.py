"""Foreign snapshots: they give a machine nothing of the host, run nothing, and every fault is
reported as one of the file."""

import gzip
import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.errors import BoincvmError, HostDiskFullError, InputFileError
from boincvm.exit_codes import ExitCode
from boincvm.file_digest import digest_of
from boincvm.hypervisor.qcow2 import CLUSTER
from boincvm.machine.saved_machine import find_saved, write_saved
from boincvm.wrapper.snapshot.archive import export, read_snapshot
from boincvm.wrapper.snapshot.importer import import_snapshot
from boincvm.wrapper.snapshot.trust import UntrustedJobError
from support.snapshots import (
    DISK,
    JOB,
    MACHINE,
    MEMORY,
    change_table,
    make_job,
    make_snapshot,
    members,
    seal,
    write_members,
)

pytestmark = pytest.mark.timeout(120)


def refused(snapshot: Path, reason: str) -> None:
    """Check that the command refuses the file, and leaves nothing."""
    target = snapshot.parent / "there"
    with pytest.raises(InputFileError, match=reason):
        import_snapshot(snapshot, target)
    assert not target.exists()
    assert not snapshot.with_name(".there.part").exists()
    assert main(["snapshot", "import", str(snapshot), str(target)]) == ExitCode.INPUT_FILE


def test_a_snapshot_of_ours(tmp_path: Path) -> None:
    then = 1_234_567_890_123_456_789

    def change(job: Path) -> None:
        os.utime(job / "job.xml", ns=(0, then))

    snapshot = make_snapshot(tmp_path, change)
    import_snapshot(snapshot, tmp_path / "there")
    assert (tmp_path / "there" / "job.xml").stat().st_mtime_ns == then
    saved = find_saved(tmp_path / "there" / MACHINE).saved
    assert saved is not None
    assert sorted(saved.checkpoint.files) == [DISK, MEMORY]
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o700


# What a disk names.


def with_data_file(secret: Path) -> Callable[[Path], None]:
    """Make the machine's disk one whose data are in the file `secret`, with right digests."""

    def change(job: Path) -> None:
        path = job / MACHINE / DISK
        name = os.fsencode(secret)
        with path.open("r+b") as file:
            file.seek(72)
            file.write(struct.pack(">Q", 1 << 2))
            file.seek(88)
            file.write(struct.pack(">Q", 1 << 1))  # raw
            file.seek(104)
            file.write(struct.pack(">II", 0x44415441, len(name)) + name)
        seal(job)

    return change


def test_a_disk_that_names_a_file_of_the_host(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    snapshot = make_snapshot(tmp_path, with_data_file(secret))
    refused(snapshot, "names another file as its data file")


def test_a_disk_over_a_file_of_the_host(tmp_path: Path) -> None:
    def change(job: Path) -> None:
        with (job / MACHINE / DISK).open("r+b") as file:
            file.seek(8)
            file.write(struct.pack(">QI", 512, 11))
            file.seek(512)
            file.write(b"/etc/passwd")
        seal(job)

    refused(make_snapshot(tmp_path, change), "names another file as its backing file")


@pytest.mark.parametrize("content", [b"KDMV" + bytes(CLUSTER), b"# Disk DescriptorFile" * 99])
def test_a_disk_of_another_format(tmp_path: Path, content: bytes) -> None:
    def change(job: Path) -> None:
        (job / MACHINE / DISK).write_bytes(content)
        seal(job)

    refused(make_snapshot(tmp_path, change), "is not a qcow2 file")


# What is said to QEMU.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "pc-q35-7.2,kernel=/etc/passwd,initrd=/etc/passwd"}, "type is invalid"),
        ({"type": "pc-q35-7.2\n"}, "type is invalid"),
        ({"type": "microvm"}, "type is invalid"),
        ({"type": ["pc-q35-7.2"]}, "does not record its type"),
        ({"accelerator": "tcg,one-insn-per-tb=on"}, "accelerator is invalid"),
        ({"cpu": "max,-erms,-fsrm,vendor=x"}, "cpu is invalid"),
        ({"cpu": "host"}, "cpu is invalid"),
        ({"cpu": 7}, "does not record its cpu"),
        ({"memory": "../../secret"}, "memory is invalid"),
        ({"memory": "memory-000009"}, "not among the files"),
        ({"layers": ["/nowhere/passwd"]}, "not a layer of a machine's disk"),
        ({"layers": ["../disk-000001.qcow2"]}, "not a layer of a machine's disk"),
        ({"layers": ["disk-000001.qcow2,readonly=off"]}, "not a layer of a machine's disk"),
        ({"layers": ["disk-000007.qcow2"]}, "not among the files"),
        ({"layers": [DISK, DISK]}, "named twice"),
        ({"layers": [{"driver": "nbd"}]}, "not a layer of a machine's disk"),
        ({"layers": []}, "does not list its layers"),
        ({"layers": DISK}, "does not list its layers"),
        ({"processor": None}, "does not record its processor"),
    ],
)
def test_words_for_the_hypervisor(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    refused(make_snapshot(tmp_path, **changes), reason)


def test_files_that_are_not_sealed(tmp_path: Path) -> None:
    """Anybody may have changed an unsealed layer."""

    def change(job: Path) -> None:
        saved = find_saved(job / MACHINE).saved
        assert saved is not None
        seal(job, {MEMORY: saved.checkpoint.files[MEMORY]})

    refused(make_snapshot(tmp_path, change), f"{DISK} is not among the files")


# What the job may do here.


ON_HOST = "<job_desc><task><application>{}</application>{}</task></job_desc>"
IN_MACHINE = "<virtualmachine>vm</virtualmachine><copy_app_to_VM>1</copy_app_to_VM>"


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (ON_HOST.format("app.sh", "<command_line>-x</command_line>"), "run 'app.sh -x' on this"),
        (ON_HOST.format("/bin/sh", ""), "run '/bin/sh' on this computer"),
        (JOB.replace("<task>", "<task><application>e</application></task><task>"), "run 'e' on"),
        (
            JOB.replace("<task>", "<task><application>e</application><daemon/></task><task>"),
            "run 'e' on this computer",
        ),
        (JOB.replace("app.sh", "/etc/passwd"), "job.xml cannot be read.*'/etc/passwd'"),
        (JOB.replace("<memory_mb>", "<network>1</network><memory_mb>"), "machine 'vm' a network"),
        ("<job_desc>", "job.xml cannot be read"),
        ("<soft_link>../secret</soft_link>", "job.xml cannot be read"),
        ("<soft_link>other.xml</soft_link>", "run 'evil' on this computer"),
    ],
)
def test_a_job_that_leaves_its_machine_needs_trust(tmp_path: Path, job: str, reason: str) -> None:
    def change(directory: Path) -> None:
        (directory / "job.xml").write_text(job)
        (directory / "other.xml").write_text(ON_HOST.format("evil", ""))

    snapshot = make_snapshot(tmp_path)
    contents = members(snapshot)
    change(tmp_path / "job")
    if "soft_link" in job:  # an export takes what a link leads to
        table = json.loads(contents["snapshot.json"])
        for name in ("job.xml", "other.xml"):
            contents[name] = (tmp_path / "job" / name).read_bytes()
            table["files"][name] = described(tmp_path / "job" / name)
        contents["snapshot.json"] = json.dumps(table).encode()
        write_members(snapshot, contents)
    else:
        export(tmp_path / "job", snapshot, force=True)
    with pytest.raises(InputFileError, match=reason):
        import_snapshot(snapshot, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    arguments = ["snapshot", "import", str(snapshot), str(tmp_path / "there")]
    assert main(arguments) == ExitCode.INPUT_FILE
    import_snapshot(snapshot, tmp_path / "there", trusted=True)
    assert (tmp_path / "there" / "job.xml").read_text() == job


def described(path: Path) -> dict[str, object]:
    size, digest = digest_of(path)
    return {"size": size, "digest": digest}


def test_the_command_says_what_would_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = make_snapshot(tmp_path, job=ON_HOST.format("app.sh", ""))
    with pytest.raises(UntrustedJobError):
        import_snapshot(snapshot, tmp_path / "there")
    main(["snapshot", "import", str(snapshot), str(tmp_path / "there")])
    reported = capsys.readouterr().err
    assert "its job would run 'app.sh' on this computer" in reported
    assert "--trust" in reported
    # It is for another processor's machine, and is taken all the same.
    words = ["snapshot", "import", "--trust", str(snapshot), str(tmp_path / "there")]
    assert main(words) == 0


@pytest.mark.parametrize(
    ("job", "needed"),
    [
        (JOB, []),
        (ON_HOST.format("app.sh", ""), ["run 'app.sh' on this computer"]),
        (
            JOB.replace("<memory_mb>", "<network>1</network><memory_mb>"),
            ["give the machine 'vm' a network"],
        ),
        (
            ON_HOST.format("a", "</task><task><application>b</application>"),
            ["run 'a' on this computer", "run 'b' on this computer"],
        ),
        ("<soft_link>other.xml</soft_link>", ["run 'evil' on this computer"]),
        ("<soft_link>none.xml</soft_link>", []),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_check_says_what_needs_trust(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    job: str,
    needed: list[str],
    as_json: bool,
) -> None:
    def change(directory: Path) -> None:
        (directory / "other.xml").write_text(ON_HOST.format("evil", ""))

    snapshot = make_snapshot(tmp_path, change)
    contents = members(snapshot)
    contents["job.xml"] = job.encode()
    write_members(snapshot, contents)
    size, digest = len(job), hashlib.blake2b(job.encode(), digest_size=32).hexdigest()
    change_table(
        snapshot,
        lambda table: table["files"].update({"job.xml": {"size": size, "digest": digest}}),  # type: ignore[attr-defined]
    )
    before = sorted(tmp_path.rglob("*"))
    options = ["--check", *(["--json"] if as_json else [])]
    code = main(["snapshot", "import", *options, str(snapshot)])
    reported = capsys.readouterr()
    # It is of another image, so it does not go on either.
    assert code == (ExitCode.INPUT_FILE if needed else ExitCode.HYPERVISOR_FAILED)
    if as_json:
        assert json.loads(reported.out)["needs_trust"] == needed
    else:
        line = f"its job would {', '.join(needed)}: that needs --trust"
        assert ("--trust" in reported.err, line in reported.err) == (bool(needed), bool(needed))
    main(["snapshot", "import", *options, "--trust", str(snapshot)])
    assert not [line for line in capsys.readouterr().err.splitlines() if "--trust" in line]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_check_finds_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = make_snapshot(tmp_path)
    write_members(snapshot, {**members(snapshot), "app.sh": b"#!/bin/no\n"})
    assert main(["snapshot", "import", "--check", str(snapshot)]) == ExitCode.INPUT_FILE
    assert "'app.sh' differs from what was written" in capsys.readouterr().err


# What is no snapshot, or a damaged one.


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "/evil", "a/b", ".hidden", "", "x" * 256, "boincvm-machine-0/evil", "a\0b"),
        *("init_data.xml", "boinc_finish_called", "boincvm-machine-9", "boincvm-machine-0/.x"),
        *("boincvm-machine-../memory-000001/x", "boincvm.sock", "\ud800"),
        "boincvm-machine-0./memory-000001",
    ],
)
def test_names_that_a_job_has_not(tmp_path: Path, name: str) -> None:
    snapshot = make_snapshot(tmp_path)

    def change(table: dict[str, dict[str, object]]) -> None:
        table["files"][name] = {"size": 0, "digest": "0" * 64}

    change_table(snapshot, change)  # type: ignore[arg-type]
    refused(snapshot, "is not a usable snapshot")


NUMBERS = ["Infinity", "-Infinity", "NaN", "1e400", "-1", "9" * 400, "9" * 5000, '"1"', "true"]


@pytest.mark.parametrize("value", [*NUMBERS, "[" * 100_000, "null"])
@pytest.mark.parametrize("field", ["made", "schema", "size", "memory", "checkpoint"])
def test_numbers_that_make_no_sense(tmp_path: Path, field: str, value: str) -> None:
    snapshot = make_snapshot(tmp_path)
    contents = members(snapshot)
    table = json.loads(contents["snapshot.json"])
    mark = "@here@"
    location = {
        "size": lambda: table["files"]["app.sh"],
        "memory": lambda: table["machines"][0],
        "checkpoint": lambda: table["machines"][0],
    }.get(field, lambda: table)()
    location[field] = mark
    text = json.dumps(table).replace(f'"{mark}"', value)
    write_members(snapshot, {**contents, "snapshot.json": text.encode()})
    refused(snapshot, "is not a usable snapshot")


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("field", ["made", "number"])
def test_numbers_in_a_manifest(tmp_path: Path, field: str, value: str) -> None:
    def change(job: Path) -> None:
        path = job / MACHINE / "checkpoint-000001.json"
        table = json.loads(path.read_text())
        del table["checksum"]
        table[field] = json.loads(value) if len(value) < 4000 else 10**4000
        text = json.dumps(table, sort_keys=True, separators=(",", ":"))
        checksum = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
        path.write_text(json.dumps({**table, "checksum": checksum}))

    job = make_job(tmp_path / "job")
    export(job, tmp_path / "file", force=False)
    change(job)
    contents = members(tmp_path / "file")
    name = f"{MACHINE}/checkpoint-000001.json"
    table = json.loads(contents["snapshot.json"])
    contents[name] = (job / name).read_bytes()
    table["files"][name] = described(job / name)
    write_members(tmp_path / "file", {**contents, "snapshot.json": json.dumps(table).encode()})
    refused(tmp_path / "file", "checkpoint 1 of boincvm-machine-0")
    assert main(["snapshot", "ls", str(job)]) == 0  # and no list of checkpoints ends by it


@pytest.mark.parametrize("driver", ["virtualbox", "libvirt", "vmware"])
def test_a_driver_that_cannot_check_files_of_others(
    tmp_path: Path, driver: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its machines are not exported, and the error names the driver and what to do."""
    job = make_job(tmp_path / "job")
    saved = find_saved(job / MACHINE).saved
    assert saved is not None
    write_saved(job / MACHINE, saved._replace(driver=driver))
    words = ["snapshot", "export", str(job), str(tmp_path / "file")]
    assert main(words) == ExitCode.INPUT_FILE
    output = capsys.readouterr().err
    assert f"was saved by the driver {driver}, whose machines cannot be exported" in output
    assert "can be exported: qemu" in output
    assert sorted(os.listdir(tmp_path)) == ["job"]


def test_what_it_does_not_say_and_what_is_missing(tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path)
    contents = members(snapshot)
    write_members(snapshot, {**contents, "more": b""})
    refused(snapshot, "'more' does not belong in it")
    write_members(snapshot, {name: contents[name] for name in contents if name != "app.sh"})
    refused(snapshot, "'app.sh' is missing")
    write_members(snapshot, {**contents, "app.sh": b"#!/bin/ls\n"})
    refused(snapshot, "differs from what was written")
    write_members(snapshot, {"app.sh": b"", **contents})
    refused(snapshot, "does not begin with")
    snapshot.write_bytes(gzip.compress(b"no tar at all" * 100))
    refused(snapshot, "not a tar archive")
    snapshot.unlink()
    os.mkfifo(snapshot)
    refused(snapshot, "not a regular file")


@pytest.mark.parametrize("name", ["n" * 256, "file", "full", "gone/there", "file/there"])
def test_where_it_cannot_go(tmp_path: Path, name: str) -> None:
    snapshot = make_snapshot(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "one").touch()
    before = sorted(os.listdir(tmp_path))
    target = str(tmp_path / name)
    assert main(["snapshot", "import", str(snapshot), target]) == ExitCode.OUTPUT_FILE
    if name != "full":
        words = ["snapshot", "export", str(tmp_path / "job"), target]
        assert main(words) == ExitCode.OUTPUT_FILE
    assert sorted(os.listdir(tmp_path)) == before


def test_a_disk_that_becomes_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes full while the file is written, and while it is read back."""
    snapshot = make_snapshot(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    words = ["snapshot", "import", str(snapshot), str(tmp_path / "there")]
    assert main(words) == ExitCode.HOST_DISK_FULL
    assert sorted(os.listdir(tmp_path)) == ["job", "job.snapshot"]


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = make_snapshot(tmp_path)
    status = os.statvfs(tmp_path)
    few = os.statvfs_result([1, 1, 1, 1, 1, *tuple(status)[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    with pytest.raises(HostDiskFullError, match="the disk has only 1 B left"):
        import_snapshot(snapshot, tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_changed_it_is_a_fault_of_the_file(tmp_path: Path, seed: int) -> None:
    """Change bytes of the compressed file, and of its content with right digests."""
    numbers = random.Random(seed)
    snapshot = make_snapshot(tmp_path)
    good, contents = snapshot.read_bytes(), members(snapshot)
    for _ in range(40):
        mutate(snapshot, good, contents, numbers)
        try:
            read_snapshot(snapshot)
            import_snapshot(snapshot, tmp_path / "there")
        except BoincvmError as error:
            assert error.exit_code in (ExitCode.INPUT_FILE, ExitCode.HOST_DISK_FULL)  # noqa: PT017
        assert sorted(os.listdir(tmp_path)) in (
            ["job", "job.snapshot"], ["job", "job.snapshot", "there"]
        )  # fmt: skip
        if (tmp_path / "there").exists():
            (tmp_path / "there").rename(tmp_path / "job" / f"taken-{numbers.random()}")


def mutate(snapshot: Path, good: bytes, contents: dict[str, bytes], numbers: random.Random) -> None:
    """Return a file that differs from the good one in a few bytes."""
    kind = numbers.randrange(3)
    if kind == 0:
        snapshot.write_bytes(changed(good, numbers))
    elif kind == 1:
        plain = gzip.decompress(good)
        head = 512 * numbers.randrange(20)
        snapshot.write_bytes(
            gzip.compress(plain[:head] + changed(plain[head : head + 512], numbers)
                          + plain[head + 512 :], 1)
        )  # fmt: skip
    else:
        name = numbers.choice([name for name in contents if name != "snapshot.json"])
        new = {**contents, name: changed(contents[name][:4096], numbers) + contents[name][4096:]}
        table = json.loads(new["snapshot.json"])
        digest = hashlib.blake2b(new[name], digest_size=32).hexdigest()
        table["files"][name] = {"size": len(new[name]), "digest": digest}
        write_members(snapshot, {**new, "snapshot.json": json.dumps(table).encode()})


def changed(data: bytes, numbers: random.Random) -> bytes:
    new = bytearray(data)
    for _ in range(numbers.randrange(1, 4)):
        if numbers.random() < 0.1 and len(new) > 1:
            del new[numbers.randrange(len(new)) :]
        elif new:
            new[numbers.randrange(len(new))] = numbers.choice((0, 255, numbers.randrange(256)))
    return bytes(new)
