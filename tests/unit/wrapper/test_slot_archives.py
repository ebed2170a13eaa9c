"""unzip_input and zip_output: hostile archives, interruptions, what belongs to the output."""

import os
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    InputFileError,
    JobFileError,
    OutputFileError,
)
from boincvm.wrapper.slot import archives
from boincvm.wrapper.slot.archives import (
    LIST_FILE,
    compile_patterns,
    remember_files,
    unzip_input,
    zip_output,
)


def make(path: Path, entries: dict[str, str], mode: int = 0o100644, system: int = 3) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor would tidy it
            info.external_attr = mode << 16
            info.create_system = system
            archive.writestr(info, content)
    return path


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the syncs without waiting for other tests' disk writes."""
    calls: list[int] = []
    monkeypatch.setattr(os, "sync", lambda: calls.append(1))
    return calls


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    path = tmp_path / "slot"
    path.mkdir()
    return path


def test_an_archive_behind_a_soft_link(tmp_path: Path, slot: Path, synced: list[int]) -> None:
    archive = make(tmp_path / "in_7.zip", {"a/b/run.sh": "#!", "a/": "", "c": "see"}, 0o104755)
    link = slot / "in.zip"
    link.write_text("<soft_link>../../projects/x/in_7.zip</soft_link>")
    unzip_input(link, archive, slot)
    assert tree(slot) == ["a", "a/b", "a/b/run.sh", "c"]
    assert (slot / "c").read_text() == "see"
    assert stat.S_IMODE((slot / "a/b/run.sh").stat().st_mode) & 0o7700 == 0o700
    assert archive.exists()
    assert synced == [1]
    (slot / "c").unlink()
    unzip_input(link, archive, slot)  # it was done: the archive has gone from the slot
    assert not (slot / "c").exists()


def test_one_that_was_interrupted_is_done_again(
    slot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make(slot / "in.zip", {"a": "1", "d/b": "2", "c": "3"})
    rename = os.rename

    def power_cut(source: bytes, target: bytes, **keywords: int) -> None:
        if target == b"c":
            raise KeyboardInterrupt
        rename(source, target, **keywords)

    monkeypatch.setattr(os, "rename", power_cut)
    with pytest.raises(KeyboardInterrupt):
        unzip_input(archive, archive, slot)
    assert archive.exists()
    monkeypatch.undo()
    (slot / "d/.boincvm-part").write_text("of a killed run")
    unzip_input(archive, archive, slot)
    assert [(slot / name).read_text() for name in ("a", "d/b", "c")] == ["1", "2", "3"]
    assert tree(slot) == ["a", "c", "d", "d/b"]


@pytest.mark.parametrize(
    ("given", "system", "made"),
    [
        (0o100751, 3, 0o751),
        (0o100400, 3, 0o400),
        (0o104755, 3, 0o755),
        (0o100000, 3, 0o644),
        (0o100600, 0, 0o644),  # no modes: made by DOS or Windows
    ],
)
def test_modes_are_those_that_the_stock_wrapper_gives(
    slot: Path, given: int, system: int, made: int
) -> None:
    archive = make(slot / "in.zip", {"a": "1"}, given, system=system)
    before = os.umask(0o022)
    try:
        unzip_input(archive, archive, slot)
    finally:
        os.umask(before)
    assert stat.S_IMODE((slot / "a").stat().st_mode) == made


def test_times_are_those_of_the_unpacking(slot: Path) -> None:
    """As from BOINC's wrapper 26019, whose libzip sets none; before, they were the archive's."""
    archive = make(slot / "in.zip", {"d/a": "1"})  # which says 1980
    begin = time.time()
    unzip_input(archive, archive, slot)
    assert (slot / "d/a").stat().st_mtime >= begin - 1


def test_paths_of_windows(slot: Path) -> None:
    archive = make(slot / "in.zip", {"a\\b.txt": "1"}, 0, system=0)
    unzip_input(archive, archive, slot)
    assert tree(slot) == ["a", "a/b.txt"]


@pytest.mark.parametrize(
    ("entries", "mode", "reason"),
    [
        ({"/etc/x": "1"}, 0o100644, "not a path beneath"),
        ({"a/../../x": "1"}, 0o100644, "not a path beneath"),
        ({"a": "/etc"}, stat.S_IFLNK | 0o777, "neither a file nor a directory"),
        ({"a": ""}, stat.S_IFIFO | 0o666, "neither a file nor a directory"),
        ({"d/" * 100 + "x": "1"}, 0o100644, "directories deep"),
        ({".": "1"}, 0o100644, "no name"),
        ({"./init_data.xml": "1"}, 0o100644, "file of the BOINC client"),
        ({"wrapper_checkpoint.txt": "1"}, 0o100644, "file of the BOINC client"),
        ({"Init_Data.xml": "1"}, 0o100644, "file of the BOINC client"),
        ({"d/NUL.txt": "1"}, 0o100644, "Windows can store"),
        ({"a:b": "1"}, 0o100644, "Windows can store"),
        ({"..\\x": "1"}, 0o100644, "Windows can store"),
        ({"Name": "1", "name": "2"}, 0o100644, "upper and lower case"),
        ({"D/x": "1", "d/y": "2"}, 0o100644, "upper and lower case"),
        ({"linked/x": "1"}, 0o100644, "symbolic link"),
        ({"taken": "1"}, 0o100644, "directory"),
        ({"n" * 300: "1"}, 0o100644, "name too long"),
        ({"many": "0" * 2000}, 0o100644, "more than"),
    ],
)
def test_a_hostile_archive(
    tmp_path: Path, slot: Path, entries: dict[str, str], mode: int, reason: str
) -> None:
    (tmp_path / "outside").mkdir()
    (slot / "linked").symlink_to(tmp_path / "outside")
    (slot / "taken").mkdir()
    archive = make(tmp_path / "in.zip", entries, mode)
    with pytest.raises(InputFileError, match=f"(?i){reason}"):
        unzip_input(archive, archive, slot, maximum_bytes=1000)
    assert tree(slot) == ["linked", "taken"]
    assert tree(tmp_path / "outside") == []


def test_a_bomb_whose_entries_share_their_data(tmp_path: Path, slot: Path) -> None:
    archive = make(tmp_path / "in.zip", {"a": "0" * 1_000_000})
    data = archive.read_bytes()
    end = data.rindex(b"PK\5\6")
    at = struct.unpack_from("<I", data, end + 16)[0]
    entry = data[at:end]
    index = b"".join(entry.replace(b"a", name) for name in (b"a", b"b", b"c", b"d"))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 4, 4, len(index), at, 0)
    archive.write_bytes(data[:at] + index + tail)
    with pytest.raises(InputFileError, match=r"more than 2\.9 MiB together"):
        unzip_input(archive, archive, slot, maximum_bytes=3_000_000)
    assert tree(slot) == []


def test_a_size_that_is_a_lie(tmp_path: Path, slot: Path) -> None:
    archive = make(tmp_path / "in.zip", {"a": "0" * 1_000_000})
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 24, 10)
    archive.write_bytes(data)
    with pytest.raises(InputFileError, match="not a valid zip"):
        unzip_input(archive, archive, slot, maximum_bytes=1000)
    assert tree(slot) == []


def test_an_index_that_would_fill_the_memory(tmp_path: Path, slot: Path) -> None:
    archive = tmp_path / "in.zip"
    size = 1 << 30
    with archive.open("wb") as file:
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, size, 0, 0))
    with pytest.raises(InputFileError, match="index is larger"):
        unzip_input(archive, archive, slot)


def test_a_compression_that_wants_memory(slot: Path) -> None:
    """An LZMA stream of some bytes may require four gigabytes for unpacking."""
    with zipfile.ZipFile(slot / "in.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", "content")
    with pytest.raises(InputFileError, match="uses an unsupported compression"):
        unzip_input(slot / "in.zip", slot / "in.zip", slot)
    assert tree(slot) == ["in.zip"]
    make(slot / "in.zip", {"a": "1"})
    unzip_input(slot / "in.zip", slot / "in.zip", slot)
    assert tree(slot) == ["a"]


def test_more_than_the_disk_has(slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(slot / "in.zip", {"a": "0" * 10_000, "b": "1"})
    status = os.statvfs(slot)
    few = os.statvfs_result([1, 1, 1, 1, 9_000, *tuple(status)[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    with pytest.raises(
        HostDiskFullError, match=r"have 9\.8 KiB, but the disk has only 8\.8 KiB left"
    ):
        unzip_input(archive, archive, slot)
    assert tree(slot) == ["in.zip"]


def test_too_many_files(tmp_path: Path, slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_FILES", 2)
    archive = make(tmp_path / "in.zip", {"a": "", "b": "", "c": ""})
    with pytest.raises(InputFileError, match="more than 2 files"):
        unzip_input(archive, archive, slot)


def garbled(data: bytes, changes: list[tuple[int, int]], length: int) -> bytes:
    changed = bytearray(data)
    for location, value in changes:
        changed[location % len(changed)] = value
    return bytes(changed[: max(length, 1)])


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(100, 1000),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_archive_is_reported_or_read(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], length: int
) -> None:
    location = tmp_path_factory.mktemp("damaged")
    slot = location / "slot"
    slot.mkdir()
    archive = make(location / "in.zip", {"a/b": "content " * 9, "c": "d"})
    archive.write_bytes(garbled(archive.read_bytes(), changes, length))
    reported = ""
    try:
        unzip_input(archive, archive, slot, maximum_bytes=1000)
    except InputFileError as error:
        reported = error.message
    assert archive.exists() == bool(reported)
    assert "\n" not in reported
    assert set(os.listdir(location)) <= {"in.zip", "slot"}


def packed(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {info.filename: opened.read(info) for info in opened.infolist()}


def test_the_new_files_that_match(tmp_path: Path, slot: Path) -> None:
    for name in ("in.txt", "init_data.xml"):
        (slot / name).write_text("of before")
    remember_files(slot)
    assert (slot / LIST_FILE).read_text() == "in.txt\ninit_data.xml\n"
    for name in ("out.txt", "x.log", "out_2", "boinc_lockfile", "wrapper_checkpoint.txt"):
        (slot / name).write_text(name)
    remember_files(slot)  # a restart: the list of the first start counts
    (slot / "out_dir").mkdir()
    (slot / "out_link").symlink_to("/etc/passwd")
    os.mkfifo(slot / "out_pipe")
    (slot / "out\n2").write_text("a name that no list of lines could hold")
    os.utime(slot / "out.txt", (0, 0))
    archive = tmp_path / "result_0"
    zip_output(slot, archive, compile_patterns(["^out", r"\.txt$", "_"]))
    assert packed(archive) == {"out.txt": b"out.txt", "out_2": b"out_2"}
    assert tree(tmp_path)[0] == "result_0"
    (slot / "out.txt").write_text("later")
    zip_output(slot, archive, compile_patterns(["out"]))
    assert packed(archive)["out.txt"] == b"out.txt"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (".*", ["a1.dat", "b.data", "c"]),
        ("a", ["a1.dat", "b.data"]),  # anywhere in the name, as std::regex_search
        ("^b", ["b.data"]),
        ("dat$", ["a1.dat"]),
        ("[[:digit:]]", ["a1.dat"]),
        ("^[^.[:upper:]]+$", ["c"]),
        ("(c|a1)", ["a1.dat", "c"]),
    ],
)
def test_patterns_match_as_those_of_the_stock_wrapper(
    tmp_path: Path, slot: Path, pattern: str, names: list[str]
) -> None:
    remember_files(slot)
    for name in ("a1.dat", "b.data", "c"):
        (slot / name).touch()
    zip_output(slot, tmp_path / "out.zip", compile_patterns([pattern]))
    assert sorted(packed(tmp_path / "out.zip")) == names


@pytest.mark.parametrize("pattern", ["(", "*", "a{99999999999}", "[b-a]"])
def test_a_pattern_that_is_none(pattern: str) -> None:
    with pytest.raises(JobFileError, match="not a regular expression"):
        compile_patterns(["fine", pattern])


def test_a_pattern_that_takes_too_long(tmp_path: Path, slot: Path) -> None:
    (slot / ("a" * 200)).touch()
    patterns = compile_patterns([r"(a*)(a*)(a*)\1\2\3b"])
    with pytest.raises(OutputFileError, match="too long with a name like b'aaa"):
        zip_output(slot, tmp_path / "out.zip", patterns)
    assert not (tmp_path / "out.zip").exists()
    zip_output(slot, tmp_path / "out.zip", compile_patterns(["(a+)+!|(a|a)+$"]))
    assert list(packed(tmp_path / "out.zip")) == ["a" * 200]


def test_nothing_to_pack(tmp_path: Path, slot: Path) -> None:
    (slot / "in.txt").touch()
    remember_files(slot)
    with pytest.raises(OutputFileError, match=r"nothing to put into out\.zip"):
        zip_output(slot, tmp_path / "out.zip", compile_patterns(["txt"]))
    assert tree(tmp_path) == ["slot", "slot/in.txt", f"slot/{LIST_FILE}"]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def gone_dark(*_: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(("fault", "code"), [(full, "HOST_DISK_FULL"), (gone_dark, "HOST")])
def test_no_half_an_archive(
    tmp_path: Path,
    slot: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[..., None],
    code: str,
) -> None:
    (slot / "out").touch()
    monkeypatch.setattr(os, "fsync", fault)
    with pytest.raises(BoincvmError) as failure:
        zip_output(slot, tmp_path / "out.zip", compile_patterns(["out"]))
    assert failure.value.exit_code.name == code
    assert tree(tmp_path) == ["slot", "slot/out"]
