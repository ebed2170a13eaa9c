"""Files in and out: names, links, and full disks."""

import hashlib
import os
from pathlib import Path

import pytest

from support.bench import Bench, digests
from support.small_disk import needs_namespaces, small_disk

ODD_NAMES = [b"two words", b"new\nline", b"-dash", b"\xff\xfe", b"back\\slash", b"colon:", b"*"]


def test_odd_names_go_in_and_come_out_unchanged(bench: Bench) -> None:
    work = os.fsencode(bench.work)
    arguments: list[str | bytes] = []
    for name in ODD_NAMES:
        Path(os.fsdecode(work + b"/" + name)).write_bytes(name * 100)
        arguments += [b"--input=" + name, b"--output=out/" + name]
    before = digests(bench.work)
    done = bench.run(*arguments, "--", "sh", "-c", "mkdir out; mv -- * out 2>/dev/null; ls | wc -l")
    assert (done.code, done.stdout) == (0, b"1\n"), done.stderr
    after = digests(bench.work)
    for shown in map(os.fsdecode, ODD_NAMES):
        assert after[shown] == after[f"out/{shown}"] == before[shown]


def test_a_tree_with_modes_links_and_holes_comes_back_the_same(bench: Bench) -> None:
    tree = bench.work / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/run").write_bytes(b"#!/bin/sh\n")
    (tree / "deep/run").chmod(0o751)
    (tree / "deep/er/up").symlink_to("../run")
    (tree / "large").write_bytes(os.urandom(9_000_001))
    with (tree / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    (tree / "empty").touch()
    before = digests(tree)
    script = "du -m tree/sparse | cut -f1; stat -c %s:%b tree/sparse; mv tree back"
    done = bench.run("--input", "tree", "--output", "back", "--", "sh", "-c", script)
    assert done.code == 0, done.stderr
    assert digests(tree) == digests(bench.work / "back") == before
    assert (bench.work / "back/deep/run").stat().st_mode == (tree / "deep/run").stat().st_mode
    assert (bench.work / "back/sparse").stat().st_blocks < 4096
    assert int(done.stdout.split()[0]) < 2


def test_a_large_file_in_the_guests_memory_comes_out(bench: Bench) -> None:
    """Linux before 6.6 has no direct input and output on a tmpfs."""
    script = "mkdir out; mount -t tmpfs none out; head -c 9000001 /dev/urandom >out/large;"
    done = bench.run("--output", "out", "--", "sh", "-c", f"{script} sha256sum <out/large")
    assert done.code == 0, done.stderr
    content = (bench.work / "out/large").read_bytes()
    assert hashlib.sha256(content).hexdigest() == done.stdout.split()[0].decode()


def test_times_go_in_and_come_out(bench: Bench) -> None:
    """Test files by frames and by the transfer disk, directories and links; also times that the
    guest sets. So programs like make do nothing twice."""
    tree = bench.work / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "source").write_bytes(b"small")
    (tree / "sub" / "made").write_bytes(os.urandom(5_000_001))
    (tree / "sub" / "link").symlink_to("source")
    names = ("sub/link", "sub/source", "sub/made", "sub", ".")
    then = 1_234_567_890_123_456_789
    wanted = {name: then + number * 10**9 for number, name in enumerate(names)}
    for name, modified in wanted.items():
        os.utime(tree / name, ns=(0, modified), follow_symlinks=False)
    script = """
        cd tree/sub && [ made -nt source ] && [ ! source -nt made ] && stat -c %.9Y link .
        cp -a /work/tree /work/back
        touch -d @1111111111.111111111 /work/back/new /work/back
        stat -c %.9Y /work/back/new
    """
    done = bench.sh(script, "--input", "tree", "--output", "back")
    assert done.code == 0, done.stderr
    seen = done.stdout.decode().split()
    assert seen == ["1234567890.123456789", "1234567893.123456789", "1111111111.111111111"]
    back = bench.work / "back"
    found = {name: (back / name).lstat().st_mtime_ns for name in names}
    assert found == {**wanted, ".": 1_111_111_111_111_111_111}
    assert (back / "new").stat().st_mtime_ns == 1_111_111_111_111_111_111


@pytest.mark.parametrize("path", ["../out", "/tmp/out", "a/../../out", "."])
def test_an_output_that_leads_out_is_refused(bench: Bench, path: str) -> None:
    bench.run("--output", path, "--", "true").check_error(210, "expected a path beneath")


def test_an_input_from_elsewhere_lands_under_its_last_name(bench: Bench) -> None:
    (bench.root / "other").write_bytes(b"other")
    (bench.root / "more").write_bytes(b"more")
    arguments = ("--input", "../other", "--input", str(bench.root / "more"))
    done = bench.run(*arguments, "--", "cat", "other", "more")
    assert (done.code, done.stdout) == (0, b"othermore")


@pytest.mark.parametrize(
    ("link", "source"),
    [("secret", "secret"), ("parent", "parent/passwd"), ("../secret", "../secret")],
)
def test_an_input_through_a_link_is_refused(bench: Bench, link: str, source: str) -> None:
    (bench.work / link).symlink_to("/etc/passwd" if "secret" in link else "/etc")
    done = bench.run("--input", source, "--", "cat", source)
    done.check_error(212, "is a symbolic link")
    assert done.stdout == b""


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "x/../../y"])
def test_a_tree_with_a_link_that_leads_out_is_refused(bench: Bench, target: str) -> None:
    (bench.work / "tree").mkdir()
    (bench.work / "tree/link").symlink_to(target)
    bench.run("--input", "tree", "--", "true").check_error(212, "may lead out of the tree")


def test_a_pipe_is_no_input(bench: Bench) -> None:
    os.mkfifo(bench.work / "pipe")
    bench.run("--input", "pipe", "--", "true").check_error(212, "is not a regular file")


def test_a_missing_input(bench: Bench) -> None:
    bench.run("--input", "nothing", "--", "true").check_error(212, "input nothing does not exist")


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /etc/passwd out",
        "mkdir out; ln -s /etc/passwd out/link",
        "mkdir out; ln -s ../../etc/passwd out/link",
        "ln -s /etc up; mkdir out; ln -s ../up/passwd out/link",
        "mkfifo out",
        ":",
    ],
)
def test_an_unsafe_or_missing_output_is_refused(bench: Bench, script: str) -> None:
    bench.sh(script, "--output", "out").check_error(213, "output out: the guest cannot send it")
    assert list(bench.work.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "code"), [("exit 0", 213), ("exit 3", 3), ("kill -9 $$", 137), ("tail /dev/zero", 198)]
)
def test_what_is_there_comes_back_beside_what_is_missing(bench: Bench, how: str, code: int) -> None:
    names = ("a", "none", "tree/b", "neither")
    options = [word for name in names for word in ("--output", name)]
    script = f"mkdir tree; echo A >a; echo B >tree/b; {how}"
    done = bench.sh(script, "--memory", "192M", *options)
    done.check_error(code, "output none: ", "output neither: ")
    assert (bench.work / "a").read_text() == "A\n"
    assert (bench.work / "tree/b").read_text() == "B\n"


def test_links_on_the_host_are_not_followed_for_an_output(bench: Bench) -> None:
    target, outside = bench.root / "target", bench.root / "outside"
    target.write_bytes(b"untouched")
    outside.mkdir()
    (bench.work / "out").symlink_to(target)
    (bench.work / "parent").symlink_to(outside)
    done = bench.sh("echo new >out", "--output", "out")
    assert done.code == 0, done.stderr
    assert target.read_bytes() == b"untouched"
    assert not (bench.work / "out").is_symlink()
    assert (bench.work / "out").read_bytes() == b"new\n"
    bench.sh("mkdir parent; echo new >parent/out", "--output", "parent/out").check_error(
        213, "parent in parent/out is a symbolic link"
    )
    assert list(outside.iterdir()) == []


def test_streams_of_a_job_file_do_not_follow_links(bench: Bench) -> None:
    target = bench.root / "target"
    target.write_bytes(b"untouched")
    (bench.work / "log").symlink_to(target)
    (bench.work / "job.toml").write_text('[[task]]\ncommand = ["echo", "x"]\nstdout = "log"\n')
    bench.run("job.toml").check_error(213, "output log")
    assert target.read_bytes() == b"untouched"


def test_a_directory_that_has_something_in_it_stays(bench: Bench) -> None:
    (bench.work / "out").mkdir()
    (bench.work / "out/mine").write_bytes(b"mine")
    bench.sh("mkdir out", "--output", "out").check_error(213, "is a directory that is not empty")
    assert digests(bench.work).keys() == {"out/mine"}


@needs_namespaces
def test_disk_full_on_the_host_under_the_machine(bench: Bench) -> None:
    done = bench.run(
        "--", "dd", "if=/dev/zero", "of=big", "bs=1M", "count=100", "conv=fsync",
        before=small_disk("16m", bench.cache),
    )  # fmt: skip
    done.check_error(223, "the host's disk is full, so the machine was stopped")


@needs_namespaces
@pytest.mark.usefixtures("cold")
def test_disk_full_on_the_host_before_the_start(bench: Bench) -> None:
    done = bench.run("--", "true", before=small_disk("64k", bench.cache))
    done.check_error(223, "the host's disk is full")


@needs_namespaces
def test_disk_full_on_the_host_under_the_output(bench: Bench) -> None:
    out = bench.work / "out"
    out.mkdir()
    script = "mkdir out; dd if=/dev/urandom of=out/big bs=1M count=20 2>&1"
    done = bench.run("--output", "out/big", "--", "sh", "-c", script, before=small_disk("8m", out))
    done.check_error(223, "no room for output out/big")


@needs_namespaces
def test_disk_full_on_the_host_under_the_output_stream(bench: Bench) -> None:
    disk = bench.work / "disk"
    disk.mkdir()
    before = [*small_disk("1m", disk), "sh", "-c", '"$@" >disk/out', "sh"]
    done = bench.run("--", "head", "-c", "4M", "/dev/zero", before=before)
    done.check_error(223, "the output does not fit")


@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [("2>/dev/full", 223, ""), ("2>&1 >/dev/null | head -c 1; exit ${PIPESTATUS[0]}", 141, "")],
)
def test_standard_error_that_cannot_be_written(
    bench: Bench, redirection: str, code: int, words: str
) -> None:
    """As for standard output, except for the message, which cannot be written."""
    before = ["bash", "-c", f'"$@" {redirection}', "bash"]
    script = "while echo complaint >&2; do :; done"
    done = bench.run("--", "sh", "-c", script, before=before)
    assert (done.code, done.stderr) == (code, words)
    assert done.stdout in (b"", b"c")


def test_all_inputs_patterns_places_and_directories_that_are_replaced(bench: Bench) -> None:
    for name in ("one.csv", "two words.csv", "prog"):
        (bench.work / name).write_text(name)
    (bench.work / "sub").mkdir()
    (bench.work / "sub/in").write_text("in")
    (bench.work / "old").mkdir()
    (bench.work / "old/former").write_text("former")
    script = (
        "pwd; ls ..; rm -r ../old; mkdir ../new ../old ../tables; echo 1 >../old/now;"
        " echo 2 >../new/file;"
        " cp ../*.csv ../tables; echo 3 >'../tables/[x].csv'"
    )
    outputs = ("old", "new/file:place/", "tables/*.csv", "two*:copies", "tables/[x].csv:odd")
    given = [f"--output={output}" for output in outputs]
    options = ("--input", ".", "--directory", "sub", "--replace", *given)
    done = bench.sh(script, *options)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.decode().split("\n")[:-1] == [
        "/work/sub", "old", "one.csv", "prog", "sub", "two words.csv",
    ]  # fmt: skip
    assert os.listdir(bench.work / "old") == ["now"]
    assert (bench.work / "place/file").read_text() == "2\n"
    assert sorted(os.listdir(bench.work / "tables")) == ["[x].csv", "one.csv", "two words.csv"]
    assert (bench.work / "copies/two words.csv").read_text() == "two words.csv"
    assert (bench.work / "odd/[x].csv").read_text() == "3\n"
    assert bench.left_overs() == []
    bench.run("--output", "none/*", "--", "true").check_error(
        213, "output none/*: nothing matches it"
    )
    bench.run("--output", "old", "--", "true").check_error(213, "not empty")
