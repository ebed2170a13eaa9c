"""The tree: links stay inside, permissions are recorded, alternatives are understood."""

import io
import os

import pytest

from boincvm.errors import ImageBuildError
from boincvm.image.alternatives import add_alternatives, read_alternatives
from boincvm.image.tree import Attributes, Tree, clean_name
from boincvm.tar_reader import Member


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree.create(tmp_path / "root")


def member(kind: str = "file", mode: int = 0o644, target: bytes = b"") -> Member:
    return Member(b"name", kind, 0, mode, 0, 0, target, 0)


def test_usr_is_merged(tree):
    tree.add_file("bin/tool", b"x")
    tree.add_file("lib/x86_64-linux-gnu/libx.so", b"y")
    assert (tree.directory / "usr/bin/tool").read_bytes() == b"x"
    assert "usr/lib/x86_64-linux-gnu/libx.so" in tree.names()
    assert tree.exists("bin/tool")
    tree.add_member("bin", member("directory", mode=0o755), None)
    assert (tree.directory / "bin").is_symlink()


def test_directories_for_other_libraries_are_merged_too(tree):
    """Otherwise Debian's usr-is-merged refuses to be configured."""
    assert not tree.exists("lib32")
    for name in ("lib32", "lib32/"):
        tree.add_member(clean_name(name), member("directory", mode=0o755), None)
    tree.add_member("lib32/libx.so", member(), io.BytesIO(b"x"))
    assert (tree.directory / "lib32").readlink().as_posix() == "usr/lib32"
    assert (tree.directory / "usr/lib32/libx.so").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["/etc", "../../../../etc", "/../../etc"])
def test_links_do_not_lead_out_of_the_tree(tree, target):
    tree.add_member("trap", member("link", target=os.fsencode(target)), None)
    tree.add_member("trap/evil", member(mode=0o644), io.BytesIO(b"evil"))
    assert (tree.directory / "etc/evil").read_bytes() == b"evil"


def test_a_circle_of_links_ends(tree):
    tree.add_link("one", "two")
    tree.add_link("two", "one")
    with pytest.raises(ImageBuildError, match="loop"):
        tree.add_file("one/file", b"")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_names_that_lead_outwards_are_refused(name):
    with pytest.raises(ImageBuildError):
        clean_name(name)


def test_names_are_made_plain():
    assert [clean_name(name) for name in ("./a/b", "/a//b/", ".", "./")] == ["a/b", "a/b", "", ""]


def test_special_rights_are_noted_and_ours_are_enough_to_read(tree):
    tree.add_member("usr/bin/su", member(mode=0o4755), io.BytesIO(b"su"))
    tree.add_file("etc/shadow", b"x", Attributes(0o640, 0, 42))
    tree.add_file("secret", b"x", Attributes(0))
    tree.add_file("plain", b"x")
    assert tree.special == {
        "usr/bin/su": Attributes(0o4755),
        "etc/shadow": Attributes(0o640, 0, 42),
        "secret": Attributes(0),
    }
    assert (tree.directory / "secret").read_bytes() == b"x"
    tree.add_file("secret", b"y")
    assert "secret" not in tree.special


def test_hard_links_and_later_files(tree):
    tree.add_member("usr/bin/one", member(mode=0o755), io.BytesIO(b"1"))
    tree.add_member("usr/bin/two", member("hard link", target=b"./usr/bin/one"), None)
    assert (tree.directory / "usr/bin/two").stat().st_nlink == 2
    tree.add_member("usr/bin/two", member(mode=0o755), io.BytesIO(b"2"))
    assert (tree.directory / "usr/bin/one").read_bytes() == b"1"
    tree.add_member("dev/null", member("device"), None)
    assert not tree.exists("dev/null")


MAWK = """#!/bin/sh
set -e
if [ "$1" = "configure" ]; then
    update-alternatives --quiet --install /usr/bin/awk awk /usr/bin/mawk 5 \\
      --slave /usr/bin/nawk nawk /usr/bin/mawk || true
    update-alternatives --install $link name $target 10
    update-alternatives --install "/usr/bin/x
fi
"""


def test_plain_calls_of_update_alternatives_are_understood():
    (awk,) = read_alternatives(MAWK)
    assert (awk.name, awk.priority) == ("awk", 5)
    assert [link for link, _, _ in awk.links] == ["/usr/bin/awk", "/usr/bin/nawk"]


def test_the_highest_priority_that_is_there_wins(tree):
    tree.add_file("usr/bin/mawk", b"")
    tree.add_file("usr/bin/gawk", b"")
    gawk = "update-alternatives --install /usr/bin/awk awk /usr/bin/gawk 10"
    gone = "update-alternatives --install /usr/bin/awk awk /usr/bin/original-awk 50"
    add_alternatives(tree, [MAWK, gawk, gone])
    assert (tree.directory / "etc/alternatives/awk").readlink().name == "gawk"
    assert str((tree.directory / "usr/bin/awk").readlink()) == "/etc/alternatives/awk"
