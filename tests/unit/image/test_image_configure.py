"""Configured packages: what dpkg has to find, and what is accepted from a machine."""

import hashlib
import io
import tarfile

import pytest

from boincvm.errors import ImageBuildError
from boincvm.image import configure
from boincvm.image.dpkg_database import add_database
from boincvm.image.manifest import Package
from boincvm.image.progress import Progress
from boincvm.image.tree import Attributes, Tree
from boincvm.image.unpack import Control


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree.create(tmp_path / "root")


def control(name: str, *, multi: bool = False, **files: bytes) -> Control:
    text = f"Package: {name}\nVersion: 1\nArchitecture: amd64"
    return Control(text, Package(name, "1", "amd64", "postinst" in files), multi, 1024, files)


def content(tree: Tree, name: str) -> str:
    return (tree.directory / "var/lib/dpkg" / name).read_text()


def test_dpkg_finds_unpacked_packages_with_their_files(tree):
    tree.add_file("etc/conf", b"value")
    first = control("first", conffiles=b"/etc/conf\nremove-on-upgrade /etc/old\n", postinst=b"x")
    add_database(tree, [first, control("second", multi=True)], {"first": ["etc", "etc/conf"]})
    digest = hashlib.md5(b"value").hexdigest()
    assert content(tree, "status") == (
        "Package: first\nStatus: install ok unpacked\nVersion: 1\nArchitecture: amd64\n"
        f"Conffiles:\n /etc/conf {digest}\n\n"
        "Package: second\nStatus: install ok unpacked\nVersion: 1\nArchitecture: amd64\n\n"
    )
    assert content(tree, "info/first.list") == "/.\n/etc\n/etc/conf\n"
    assert content(tree, "info/second:amd64.list") == "/.\n"
    assert (tree.directory / "var/lib/dpkg/info/first.postinst").stat().st_mode & 0o777 == 0o755


def test_triggers_are_known_by_path_and_by_name(tree):
    triggers = b"# comment\ninterest-noawait /usr/lib\ninterest ldconfig\nactivate other\n"
    add_database(tree, [control("one", triggers=triggers)], {})
    assert content(tree, "triggers/File") == "/usr/lib one/noawait\n"
    assert content(tree, "triggers/ldconfig") == "one\n"
    assert not (tree.directory / "var/lib/dpkg/triggers/other").exists()


def test_a_trigger_that_is_a_path_makes_no_file_elsewhere(tree):
    add_database(tree, [control("one", triggers=b"interest ../../../etc/passwd\n")], {})
    assert [*tree.directory.rglob("passwd")] == []


@pytest.mark.parametrize(
    ("files", "wants"),
    [
        ({}, False),
        ({"prerm": b"x"}, False),
        ({"triggers": b"activate-noawait ldconfig\n"}, False),
        ({"postinst": b"x"}, True),
        ({"preinst": b"x"}, True),
        ({"triggers": b"interest /usr/share/fonts\n"}, True),
    ],
)
def test_who_wants_to_be_configured(files, wants):
    assert control("one", **files).wants_configuring is wants


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    file.seek(0)
    return file


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o644
    for key, value in fields.items():
        setattr(member, key, value)
    return member


NAMES = b"bin\0lib\0lib64\0sbin\0usr\0usr/bin\0usr/lib\0usr/lib64\0usr/sbin\0"


def test_what_has_changed_comes_into_the_tree_and_what_is_gone_goes(tree):
    tree.add_file("usr/stays", b"stays")
    tree.add_file("usr/goes", b"goes", Attributes(0o600, 7, 7))
    tree.add_directory("usr/kind")
    tree.add_file("usr/kind/below", b"below")
    changes = archive(
        (entry("usr/new", uid=5, gid=6, mode=0o4755), b"new"),
        (entry("usr/kind"), b"a file now"),
        (entry("usr/link", tarfile.SYMTYPE, linkname="/usr/new"), b""),
        (entry("usr/pipe", tarfile.FIFOTYPE), b""),
    )
    names = NAMES + b"usr/stays\0usr/new\0usr/kind\0usr/link\0usr/pipe\0"
    configure._apply(tree, names, changes)
    assert (tree.directory / "usr/stays").read_bytes() == b"stays"
    assert (tree.directory / "usr/kind").read_bytes() == b"a file now"
    assert (tree.directory / "usr/link").readlink().as_posix() == "/usr/new"
    assert not tree.exists("usr/goes")
    assert not tree.exists("usr/pipe")
    assert tree.special == {"usr/new": Attributes(0o4755, 5, 6)}


@pytest.mark.parametrize("name", ["../evil", "usr/../../evil", "/../evil"])
def test_a_machine_writes_nothing_outside_of_the_tree(tree, tmp_path, name):
    with pytest.raises(ImageBuildError, match="outside"):
        configure._apply(tree, NAMES, archive((entry(name), b"evil")))
    assert not (tmp_path / "evil").exists()


def test_a_link_of_the_machine_does_not_lead_out_of_the_tree(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    changes = archive(
        (entry("usr/trap", tarfile.SYMTYPE, linkname=str(outside)), b""),
        (entry("usr/trap/evil"), b"evil"),
    )
    configure._apply(tree, NAMES + b"usr/trap\0", changes)
    assert list(outside.iterdir()) == []


def test_an_archive_that_is_cut_off_is_refused(tree):
    whole = archive((entry("usr/file"), b"x" * 2000)).getvalue()
    with pytest.raises(ImageBuildError, match="damaged"):
        configure._apply(tree, NAMES, io.BytesIO(whole[:1000]))


def test_traces_of_the_place_and_the_time_go(tree):
    gone = ["etc/passwd-", "var/log/dpkg.log", "var/cache/ldconfig/aux-cache", "tmp/x/y",
            "var/lib/dpkg/status-old", "etc/ssl/private/ssl-cert-snakeoil.key"]  # fmt: skip
    stays = ["etc/passwd", "var/lib/dpkg/status", "var/cache/fontconfig/x", "etc/ssl/certs/a.pem"]
    for name in gone + stays:
        tree.add_file(name, b"x")
    tree.add_directory("var/log/apt")
    configure._remove_traces(tree)
    assert [name for name in gone if tree.exists(name)] == []
    assert all(map(tree.exists, [*stays, "var/log/apt", "tmp"]))
    assert (tree.directory / "etc/machine-id").read_bytes() == b""


def test_a_terminal_shows_which_package_it_is():
    shown: list[str] = []
    lines = configure.ConfiguringLines(Progress(shown.append, is_live=True), 3)
    lines.receive("Setting up libc6:amd64 (2.36-9) ...")
    lines.receive("anything else")
    assert [line.endswith("libc6:amd64 (1 of 3)") for line in shown] == [True]


def test_a_failure_names_the_package_and_shows_the_end_of_the_log():
    log = configure.Log(lambda _: None)
    log.receive("stdout", b"Setting up bad (1) ...\ndpkg: error processing package bad")
    log.receive("stderr", b" (--configure):\nsubprocess returned error exit status 3\n")
    error = log.error(configure.ProgramEnd(1, None, 0, 0, 0, 0, 0))
    assert "error processing package bad" in error.message
    assert "exit status 3" in error.hint
