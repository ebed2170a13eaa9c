"""Patch files that follow a packed image: what they make, and what of them is refused."""

import errno
import lzma
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.errors import (
    HostDiskFullError,
    ImageDamagedError,
    ImageMissingError,
    UsageError,
)
from boincvm.exit_codes import ExitCode
from boincvm.image import made_once, verify
from boincvm.image.delivery import patch, patch_file
from boincvm.image.delivery.patched_pack import open_patched, pack_patch
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest
from boincvm.image.pack import MOST_PATCHES, pack_image, patch_names
from boincvm.image.store import ImageStore
from support.packed_images import CONTENTS, manifest_of, state
from support.versions import build, contents

pytestmark = pytest.mark.usefixtures("own_home")


class Files:
    """What a project's admin makes: a packed image, the patches that follow it, and other ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.publisher = ImageStore(directory / "publisher")
        self.pack = directory / "sci_1.0.tar.gz"
        self.digests = [build(self.publisher, "sci", 0)]
        with self.publisher.open("sci") as image:
            pack_image(image, self.pack)
        self.patches: list[Path] = []

    def more(self, count: int) -> list[Path]:
        """Make that many more versions; return all patches."""
        for _ in range(count):
            version = len(self.digests)
            self.digests.append(build(self.publisher, "sci", version))
            path = self.directory / f"sci_1.{version}.patch"
            with self.publisher.open("sci") as image:
                pack_patch(image, path, [self.pack, *self.patches], self.publisher)
            self.patches.append(path)
        return self.patches


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def check_version(store: ImageStore, name: str, version: int) -> None:
    """Check that the store has this version under the name, and nothing else."""
    with store.open(name) as image:
        for file, content in contents(version).items():
            assert (image.directory / file).read_bytes() == content
            assert (image.directory / file).stat().st_mode & 0o777 == 0o444
        found = f"objects/{image.digest}"
    inside = [f"{found}/{file}" for file in (INITRD, KERNEL, MANIFEST, ROOT)]
    assert state(store) == ["names", f"names/{name}", "objects", found, *inside]


def test_the_image_that_was_packed_comes_out(files, store):
    patches = files.more(3)
    with open_patched(files.pack, patches, store, "app") as image:
        assert (image.name, image.digest) == ("app", files.digests[3])
    check_version(store, "app", 3)
    assert state(files.publisher)[-5:] == state(store)[-5:]
    assert patches[0].stat().st_size < files.pack.stat().st_size / 10


def test_equal_images_have_equal_patches(files, tmp_path):
    (path,) = files.more(1)
    again = tmp_path / "again.patch"
    with files.publisher.open("sci") as image:
        base = pack_patch(image, again, [files.pack], files.publisher)
    assert again.read_bytes() == path.read_bytes()
    assert base == files.digests[0]


def test_a_later_patch_takes_the_version_that_is_here(files, store):
    """So the packed image is not unpacked, and the version before goes when nobody uses it."""
    patches = files.more(2)
    with open_patched(files.pack, patches[:1], store, "app") as former:
        files.pack.write_bytes(files.pack.read_bytes()[:2048])  # enough for the manifest
        patches[0].write_bytes(patches[0].read_bytes()[:4096])
        with open_patched(files.pack, patches, store, "app") as image:
            assert image.digest == files.digests[2]
        # A task that still has the former version goes on with it.
        assert former.root.read_bytes() == contents(1)[ROOT]
    store.collect()
    check_version(store, "app", 2)


def test_a_second_opening_reads_only_the_heads(files, store):
    patches = files.more(2)
    with open_patched(files.pack, patches, store, "app") as image:
        before = image.directory.stat().st_ino
    for path in (files.pack, *patches):
        path.write_bytes(path.read_bytes()[:2048])
    with open_patched(files.pack, patches, store, "app") as image:
        assert image.directory.stat().st_ino == before


def test_two_versions_in_use_are_not_made_again(files, store, monkeypatch):
    """Tasks of the version before may still be there, under the same name."""
    patches = files.more(1)
    with open_patched(files.pack, [], store, "app") as old:
        open_patched(files.pack, patches, store, "app").close()
        monkeypatch.setattr(store, "publish", _without_files(store.publish))
        with open_patched(files.pack, [], store, "app") as again:
            assert again.digest == old.digest == store.digest_of("app")
        assert not list((store.root / "objects").glob(f"{files.digests[1]}*"))


def _without_files(publish: Callable[..., str]) -> Callable[..., str]:
    def only_named(name: str, directory: Path, manifest: Manifest) -> str:
        assert not directory.exists()
        return publish(name, directory, manifest)

    return only_named


def test_without_patches_it_is_the_packed_image(files, store):
    with open_patched(files.pack, [], store, "app") as image:
        assert image.digest == files.digests[0]


def test_the_names_in_a_slot():
    names = patch_names("Image_1.0.TAR.xz")
    assert names[:2] == ["Image_1.0.1.patch", "Image_1.0.2.patch"]
    assert len(names) == MOST_PATCHES + 1
    assert patch_names("image")[0] == "image.1.patch"


# Files that are damaged, or not what they are taken for.


def spoil(data: bytes, how: str) -> bytes:
    half = len(data) // 2
    lines = data.split(b"\n", 3)
    return {
        "empty": b"",
        "text": b"<html>404</html>" * 100,
        "a packed image": b"\x1f\x8b" + data,
        "truncated in its head": data[:100],
        "without anything but its head": data[:152],
        "truncated in the manifest": data[:400],
        "truncated": data[:-1],
        "half": data[:half],
        "a byte more": data + b"\0",
        "twice": data + data,
        "a bit of the manifest": data[:300] + bytes([data[300] ^ 1]) + data[301:],
        "a bit of the blocks": data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:],
        "halves swapped": data[:200] + data[half:] + data[200:half],
        "another format": data.replace(b"image patch 1", b"image patch 2"),
        "a patch of a server": lines[3],
        "the digests swapped": b"\n".join([lines[0], lines[2], lines[1], lines[3]]),
        "capital digests": b"\n".join([lines[0], lines[1].upper(), lines[2], lines[3]]),
        "another digest": b"\n".join([lines[0], lines[1], b"a" * 64, lines[3]]),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "text", "a packed image", "truncated in its head", "truncated", "half"),
        *("without anything but its head", "truncated in the manifest", "a byte more", "twice"),
        *("a bit of the manifest", "a bit of the blocks", "halves swapped", "another format"),
        *("a patch of a server", "the digests swapped", "capital digests", "another digest"),
    ],
)
@pytest.mark.parametrize("is_first_here", [False, True])
def test_a_spoiled_patch_is_named(how, is_first_here, files, store):
    patches = files.more(2)
    if is_first_here:
        open_patched(files.pack, patches[:1], store, "app").close()
    before = state(store)
    patches[1].write_bytes(spoil(patches[1].read_bytes(), how))
    with pytest.raises(ImageDamagedError) as caught:
        open_patched(files.pack, patches, store, "app")
    assert caught.value.message.startswith(f"{patches[1]} ")
    assert "reset the project" in caught.value.hint
    assert state(store) == before


def test_whatever_byte_is_altered_no_other_image_comes_out(files, store):
    """In the head, and each 97th of the rest. LZMA has bits that mean nothing."""
    (path,) = files.more(1)
    data = path.read_bytes()
    noticed, places = 0, (*range(152), *range(152, len(data), 97))
    for at in places:
        path.write_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])
        try:
            open_patched(files.pack, [path], store, "app").close()
        except ImageDamagedError as error:
            noticed += str(path) in error.message
        else:
            check_version(store, "app", 1)
            store.remove("app")
    assert noticed > len(places) * 0.9


def test_a_damaged_packed_image_is_named(files, store):
    patches = files.more(1)
    data = files.pack.read_bytes()
    files.pack.write_bytes(data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:])
    with pytest.raises(ImageDamagedError, match=r"sci_1\.0\.tar\.gz is not a packed image"):
        open_patched(files.pack, patches, store, "app")
    assert state(store) == []


def test_a_patch_of_another_image_is_named(files, store, tmp_path):
    patches = files.more(3)
    other = Files(tmp_path / "other")
    build(other.publisher, "other", 7)
    with other.publisher.open("other") as image:
        pack_image(image, tmp_path / "other.tar.gz")
    for pack, given, odd, before in (
        (files.pack, [patches[1]], patches[1], files.pack),
        (files.pack, [patches[0], patches[2]], patches[2], patches[0]),
        (files.pack, [*patches[:2], patches[0]], patches[0], patches[1]),
        (tmp_path / "other.tar.gz", patches[:1], patches[0], tmp_path / "other.tar.gz"),
    ):
        with pytest.raises(ImageDamagedError) as caught:
            open_patched(pack, given, store, "app")
        assert caught.value.message.startswith(f"{odd} does not belong to {before}: ")
    assert state(store) == []


def test_files_that_are_none(files, store, tmp_path):
    missing, pipe, folder = (tmp_path / name for name in ("a.patch", "b.patch", "c.patch"))
    os.mkfifo(pipe)
    folder.mkdir()
    with pytest.raises(ImageMissingError, match=r"there is no file .*a\.patch"):
        open_patched(files.pack, [missing], store, "app")
    for path in (pipe, folder):
        with pytest.raises(ImageDamagedError, match="not a regular file"):
            open_patched(files.pack, [path], store, "app")


def hostile(files: Files, found: dict[str, bytes], runs: dict[str, list[tuple[int, int]]]) -> Path:
    """Write a patch whose author means it: for an image of the contents `found`."""
    manifest = manifest_of(found)
    stream = BytesIO()
    patch_file.write_head(stream, files.digests[0], manifest.digest)
    stream.write(patch._MAGIC)
    patch._write_record(stream, manifest.encode())
    for name, content in found.items():
        count = -(-len(content) // patch.BLOCK)
        table = runs.get(name, [(patch._NEW, count)])
        patch._write_record(stream, b"".join(struct.pack("<II", *run) for run in table))
        for at in range(0, len(content), patch.SEGMENT):
            patch._write_record(stream, content[at : at + patch.SEGMENT])
    path = files.directory / "hostile.patch"
    path.write_bytes(stream.getvalue())
    return path


def test_a_disk_that_names_files_of_the_host_is_refused(files, store):
    root = bytearray(CONTENTS[ROOT])
    root[8:16] = struct.pack(">Q", 112)
    root[104:123] = struct.pack(">II11s", 0, 0, b"/etc/shadow")
    path = hostile(files, {**CONTENTS, ROOT: bytes(root)}, {})
    with pytest.raises(ImageDamagedError, match="names another file as its backing file") as caught:
        open_patched(files.pack, [path], store, "app")
    assert caught.value.message.startswith(f"{path} ")
    assert state(store) == []


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [(0, 0)],
        [(patch._NEW, 0)],
        [(0, (1 << 32) - 1)],
        [(patch._NEW, (1 << 32) - 1)],
        [(0, 1)] * 2000,
        [((1 << 32) - 2, 1)],
        [(patch._NEW, 1)],
    ],
)
def test_runs_that_make_no_sense(runs, files, store):
    path = hostile(files, CONTENTS, {KERNEL: runs})
    with pytest.raises(ImageDamagedError, match=r"hostile\.patch is damaged"):
        open_patched(files.pack, [path], store, "app")
    assert state(store) == []


def test_a_hostile_patch_that_is_in_order_is_taken(files, store):
    """So the tests above find what they are looking for."""
    path = hostile(files, CONTENTS, {})
    with open_patched(files.pack, [path], store, "app") as image:
        assert image.kernel.read_bytes() == CONTENTS[KERNEL]


_MEASURE = """
import re, sys
from pathlib import Path
from boincvm.errors import ImageDamagedError
from boincvm.image.delivery.patched_pack import open_patched
from boincvm.image.store import ImageStore
import lzma
def peak():
    # Not getrusage: Linux counts what the process was before it became this program.
    line = re.search(r"^VmHWM:\\s+([0-9]+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(line[1]) >> 10
pack, patch, store = map(Path, sys.argv[1:])
before = peak()
try:
    open_patched(pack, [patch], ImageStore(store), "app").close()
except ImageDamagedError:
    print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["runs", "blocks", "claims"])
def test_no_patch_takes_much_memory(kind, files, tmp_path):
    """As many runs as an image may have, an endless record, and one that claims as much."""
    path = hostile(files, CONTENTS, {})
    data = path.read_bytes()
    manifest = patch_file._HEAD_BYTES + len(patch._MAGIC)
    (stored,) = struct.unpack_from("<I", data, manifest)
    head = data[: manifest + 8 + stored]
    plain = {"runs": patch._MOST_RUN_BYTES // 8 * 8, "blocks": 160 << 20, "claims": 160 << 20}
    quick = [{**patch._FILTERS[0], "preset": 0}]
    packed = lzma.compress(bytes(plain[kind]), lzma.FORMAT_RAW, filters=quick)
    claimed = {"runs": plain[kind], "blocks": 1 << 20, "claims": (1 << 32) - 1}
    path.write_bytes(head + struct.pack("<II", len(packed), claimed[kind]) + packed)
    command = [sys.executable, "-c", _MEASURE, files.pack, path, tmp_path / "new"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 64, done.stderr


# The disk, other processes, and processes that are killed.


def test_too_small_a_disk_is_reported_before_anything_is_written(files, store, monkeypatch):
    patches = files.more(2)
    size = manifest_of(contents(0)).size + manifest_of(contents(1)).size
    for free in (0, size):
        monkeypatch.setattr(made_once, "free_space", lambda _path, free=free: free)
        with pytest.raises(HostDiskFullError, match="of disk space"):
            open_patched(files.pack, patches, store, "app")
        assert state(store) == []
    last = manifest_of(contents(2)).size
    monkeypatch.setattr(made_once, "free_space", lambda _path: size + last + made_once._MARGIN)
    open_patched(files.pack, patches, store, "app").close()


def fail_at_sync(number: int, fault: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    real, found = os.fsync, []

    def fail(descriptor: int) -> None:
        found.append(descriptor)
        if len(found) == number:
            raise fault
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("number", [2, 5, 8, 10])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_fault_while_it_is_made_leaves_nothing(number, fault, files, store, monkeypatch):
    """While the packed image is unpacked, and while the patches are applied."""
    patches = files.more(2)
    with monkeypatch.context() as patched:
        fail_at_sync(number, fault, patched)
        with pytest.raises((HostDiskFullError, KeyboardInterrupt)) as caught:
            open_patched(files.pack, patches, store, "app")
    if isinstance(fault, OSError):
        assert f"cannot be applied in {store.root}: No space left" in caught.value.message
    assert state(store) == []
    open_patched(files.pack, patches, store, "app").close()


@pytest.mark.parametrize("number", [2, 4, 5])
def test_a_fault_while_a_patch_is_made_leaves_nothing(number, files, tmp_path, monkeypatch):
    files.digests.append(build(files.publisher, "sci", 1))
    target = tmp_path / "target"
    target.mkdir()
    before = state(files.publisher)
    with monkeypatch.context() as patched, files.publisher.open("sci") as image:
        fail_at_sync(number, OSError(errno.ENOSPC, "No space left"), patched)
        with pytest.raises(HostDiskFullError, match=r"sci\.patch cannot be written"):
            pack_patch(image, target / "sci.patch", [files.pack], files.publisher)
    assert list(target.iterdir()) == []
    assert state(files.publisher) == before


def test_what_a_killed_process_left_goes(files, store):
    patches = files.more(1)
    left = store.root / "unpacking" / "0"
    left.mkdir(parents=True)
    (left / KERNEL).write_bytes(b"half")
    open_patched(files.pack, patches, store, "app").close()
    check_version(store, "app", 1)


def test_two_tasks_make_it_once(files, store, monkeypatch):
    patches = files.more(1)
    applied, begun, go_on = [], threading.Event(), threading.Event()
    real = patch_file.PatchFile.apply

    def slow(self: patch_file.PatchFile, base: Path, target: Path) -> Manifest:
        applied.append(self.path)
        begun.set()
        assert go_on.wait(60)
        return real(self, base, target)

    monkeypatch.setattr(patch_file.PatchFile, "apply", slow)
    digests = []

    def open_it() -> None:
        with open_patched(files.pack, patches, store, "app") as image:
            digests.append(image.digest)

    threads = [threading.Thread(target=open_it) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert (applied, digests) == (patches, [files.digests[1]] * 2)


def test_a_version_here_that_was_altered_unnoticed_is_not_used(files, store, monkeypatch):
    """The patch is not at fault, so the packed image is unpacked."""
    patches = files.more(2)
    with open_patched(files.pack, patches[:1], store, "app") as image:
        root = image.root
    content = root.read_bytes()
    root.chmod(0o644)
    root.write_bytes(content[:-9000] + bytes([content[-9000] ^ 1]) + content[-8999:])
    monkeypatch.setattr(verify, "is_remembered", lambda *_: True)
    with open_patched(files.pack, patches, store, "app") as image:
        assert image.digest == files.digests[2]
        assert image.root.read_bytes() == contents(2)[ROOT]


# Making patches.


def test_what_makes_no_patch(files, tmp_path):
    patches = files.more(1)
    with files.publisher.open("sci") as image:
        for name, since, reason in (
            ("sci.tar.gz", [files.pack], "expected a patch file's name"),
            ("sci.patch", [files.pack, *patches], "nothing has changed"),
            ("sci_1.1.patch", [files.pack], "already exists"),
        ):
            with pytest.raises(UsageError, match=reason):
                pack_patch(image, tmp_path / name, since, files.publisher)
        with pytest.raises(ImageDamagedError, match="is not a packed image"):
            pack_patch(image, tmp_path / "sci.patch", patches, files.publisher)
    assert not (tmp_path / "sci.patch").exists()


def test_no_more_than_so_many_patches(files, store, tmp_path):
    patches = files.more(MOST_PATCHES)
    open_patched(files.pack, patches, store, "app").close()
    check_version(store, "app", MOST_PATCHES)
    build(files.publisher, "sci", MOST_PATCHES + 1)
    with files.publisher.open("sci") as image:
        with pytest.raises(UsageError, match=r"8 patches follow .* already"):
            pack_patch(image, tmp_path / "9.patch", [files.pack, *patches], files.publisher)
        pack_patch(image, tmp_path / "9.patch", [files.pack], files.publisher)
    with pytest.raises(UsageError, match="9 patches follow"):
        open_patched(files.pack, [*patches, patches[0]], store, "app")
    open_patched(files.pack, [tmp_path / "9.patch"], store, "app").close()
    check_version(store, "app", MOST_PATCHES + 1)


def test_an_image_altered_since_it_was_opened_makes_no_patch(files, tmp_path):
    build(files.publisher, "sci", 1)
    with files.publisher.open("sci") as image:
        content = image.root.read_bytes()
        image.root.chmod(0o644)
        image.root.write_bytes(content[:-100] + bytes(100))
        with pytest.raises(ImageDamagedError, match="image sci was altered"):
            pack_patch(image, tmp_path / "sci.patch", [files.pack], files.publisher)
    assert not (tmp_path / "sci.patch").exists()


def test_the_command_line(files, tmp_path, capsys):
    store = ImageStore()
    for version in (1, 2):
        files.digests.append(build(store, "sci", version))
        (tmp_path / "copy").mkdir(exist_ok=True)
        path = tmp_path / "copy" / f"sci_1.{version}.patch"
        since = [part for old in (files.pack, *files.patches) for part in ("--since", str(old))]
        more = ["--json"] if version == 2 else []
        assert main(["image", "pack", *more, *since, "sci", str(path)]) == 0
        files.patches.append(path)
    printed = capsys.readouterr()
    whole = printed.out.splitlines()[0]
    assert whole.startswith(f"image sci has been packed: {files.patches[0]}, ")
    assert f"; it follows {files.pack} (" in whole
    assert f'"base": "{files.digests[1]}"' in printed.out
    assert "trying the patch out" in printed.err
    with_patches = [part for one in files.patches for part in ("--patch", str(one))]
    shutil.rmtree(store.root)
    assert main(["image", "unpack", *with_patches, str(files.pack), "new"]) == 0
    assert f"image new has been unpacked: {files.digests[2][:12]}" in capsys.readouterr().out
    assert store.digest_of("new") == files.digests[2]
    assert main(["image", "pack", "new", str(tmp_path / "new.patch")]) == ExitCode.USAGE
    assert "--since OLD" in capsys.readouterr().err
