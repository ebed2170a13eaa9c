"""Layers of a container: whiteouts, links across layers, owners; and what is refused."""

import io
import os
import tarfile

import pytest

from boincvm.errors import ImageBuildError
from boincvm.image.oci.layers import Flattening
from boincvm.image.tree import Attributes, Tree
from support.containers import Entry, directory, hard_link, link, tar_of


@pytest.fixture
def tree(tmp_path) -> Tree:
    (tmp_path / "root").mkdir()
    return Tree(tmp_path / "root")


def flatten(tree: Tree, *layers: list[Entry]) -> list[str]:
    flattening = Flattening(tree)
    for number, layer in enumerate(layers):
        flattening.add(io.BytesIO(tar_of(layer)), str(number))
    return tree.names()


def content(tree: Tree, name: str) -> bytes:
    return (tree.directory / name).read_bytes()


def test_a_later_layer_replaces_and_adds(tree):
    names = flatten(
        tree,
        [directory("a"), Entry("a/one", b"1"), Entry("a/two", b"2")],
        [Entry("a/two", b"second"), Entry("b/three", b"3")],
    )
    assert names == ["a", "a/one", "a/two", "b", "b/three"]
    assert content(tree, "a/two") == b"second"


def test_a_whiteout_takes_a_file_or_a_directory_away(tree):
    names = flatten(
        tree,
        [Entry("a/one", b"1"), Entry("a/two", b"2"), Entry("b/c/d", b"3")],
        [Entry("a/.wh.one"), Entry(".wh.b"), Entry(".wh.nothing")],
    )
    assert names == ["a", "a/two"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_whiteout_does_not_touch_what_its_own_layer_brings(tree, is_first):
    own = [Entry("a/new", b"n"), Entry("file", b"own")]
    hiding = [Entry(".wh.a"), Entry(".wh.file")]
    names = flatten(
        tree,
        [Entry("a/old", b"o"), Entry("a/deep/old", b"o"), Entry("file", b"old")],
        hiding + own if is_first else own + hiding,
    )
    assert names == ["a", "a/new", "file"]
    assert content(tree, "file") == b"own"


@pytest.mark.parametrize("is_first", [True, False])
def test_an_opaque_directory_shows_only_its_own_layer(tree, is_first):
    own = [directory("a", 0o700), Entry("a/new", b"n"), Entry("a/sub/new", b"n")]
    opaque = [Entry("a/.wh..wh..opq")]
    names = flatten(
        tree,
        [Entry("a/old", b"o"), Entry("a/sub/old", b"o"), Entry("a/gone/x", b""), Entry("b", b"")],
        opaque + own if is_first else own + opaque,
    )
    assert names == ["a", "a/new", "a/sub", "a/sub/new", "b"]


def test_the_whole_root_may_be_opaque(tree):
    names = flatten(tree, [Entry("old", b"")], [Entry(".wh..wh..opq"), Entry("new", b"")])
    assert names == ["new"]


def test_notes_of_a_file_system_are_left_out(tree):
    assert flatten(tree, [directory(".wh..wh.plnk"), Entry(".wh..wh.plnk/1.2", b"x")]) == []


def test_hard_links_reach_across_layers_and_outlive_their_target(tree):
    flatten(
        tree,
        [Entry("bin/su", b"su", mode=0o4755, user=7, group=8)],
        [hard_link("bin/other", "bin/su")],
        [Entry("bin/.wh.su")],
    )
    assert tree.names() == ["bin", "bin/other"]
    assert content(tree, "bin/other") == b"su"
    assert tree.special == {"bin/other": Attributes(0o4755, 7, 8)}
    assert tree.times["bin/other"] == 1_000_000_000


def test_kinds_replace_each_other(tree):
    flatten(
        tree,
        [directory("a"), Entry("a/x", b""), Entry("b", b""), link("c", "b"), directory("d")],
        [Entry("a", b"file"), directory("b"), directory("c"), link("d", "/etc")],
        [Entry("b/x", b"x"), Entry("c/x", b"x"), Entry("d/x", b"x")],
    )
    assert content(tree, "a") == b"file"
    assert {"b/x", "c/x", "etc/x"} <= set(tree.names())
    assert (tree.directory / "d").readlink().as_posix() == "/etc"


@pytest.mark.parametrize("target", ["/", "/etc", "../../../..", "/../../etc", "x/../../../.."])
def test_no_link_leads_out_of_the_tree(tree, tmp_path, target):
    before = {path.name for path in tmp_path.iterdir()}
    flatten(tree, [link("trap", target)], [Entry("trap/evil", b"evil"), Entry("trap/.wh.root")])
    assert {path.name for path in tmp_path.iterdir()} == before
    evil = [name for name in tree.names() if name.endswith("evil")]
    assert len(evil) == 1
    assert not os.path.lexists("/evil")


def test_a_whiteout_follows_links_like_everything_else(tree):
    names = flatten(
        tree,
        [link("lib", "usr/lib"), Entry("usr/lib/old", b""), Entry("usr/lib/kept", b"")],
        [Entry("lib/.wh.old"), Entry("lib/new", b"")],
    )
    assert names == ["lib", "usr", "usr/lib", "usr/lib/kept", "usr/lib/new"]


def test_owners_and_modes_are_noted(tree):
    flatten(tree, [Entry("a", b"", mode=0o600, user=1000, group=100), directory("t", 0o1777)])
    assert tree.special == {"a": Attributes(0o600, 1000, 100), "t": Attributes(0o1777)}
    flatten(tree, [Entry("a", b"")])
    assert "a" not in tree.special


def test_devices_and_pipes_are_left_out(tree):
    devices = [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    entries = [Entry(f"dev{number}", kind=kind) for number, kind in enumerate(devices)]
    assert flatten(tree, [*entries, Entry("x", b"")]) == ["x"]


def test_names_may_begin_with_a_slash_or_a_dot(tree):
    assert flatten(tree, [directory("./"), Entry("/a", b""), Entry("./b", b"")]) == ["a", "b"]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([Entry("../x", b"")], "not a path beneath"),
        ([Entry("a/../../x", b"")], "not a path beneath"),
        ([hard_link("a", "../../etc/passwd")], "not a path beneath"),
        ([hard_link("a", "missing")], "no file there"),
        ([directory("d"), hard_link("a", "d")], "no file there"),
        ([hard_link("a", "a")], "no file there"),
        ([Entry("a", b""), Entry("a/b", b"")], "no directory"),
        ([link("a", "b"), link("b", "a"), Entry("a/x", b"")], "loop"),
        ([Entry("/".join("d" * 70), b"")], "directories deep"),
        ([Entry("/".join(["n" * 200] * 30), b"")], "more than 4000 bytes"),
        ([Entry("n" * 300, b"")], "name that cannot be"),
        ([Entry("d/.wh..", b"")], "takes nothing away"),
        ([Entry("d/.wh...", b"")], "takes nothing away"),
        ([Entry("d/.wh.", b"")], "takes nothing away"),
        ([Entry("./", b"")], "root is no directory"),
        ([Entry("a", b"", user=1 << 33)], "impossible owner"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tree, entries, reason):
    with pytest.raises(ImageBuildError, match=reason):
        flatten(tree, entries)


def test_no_more_files_and_bytes_than_an_image_may_have(tree):
    flattening = Flattening(tree, most_bytes=10, most=3)
    flattening.add(io.BytesIO(tar_of([Entry("a", b"12345")])), "0")
    with pytest.raises(ImageBuildError, match="larger than an image may be"):
        flattening.add(io.BytesIO(tar_of([Entry("b", b"123456")])), "1")
    flattening = Flattening(tree, most=3)
    with pytest.raises(ImageBuildError, match="too many members"):
        flattening.add(io.BytesIO(tar_of([Entry(str(n), b"") for n in range(4)])), "0")


def test_a_damaged_layer_is_refused(tree):
    whole = tar_of([Entry("a", bytes(5000))])
    for damaged in (whole[:3000], b"x" * 1024, b""):
        with pytest.raises(ImageBuildError, match="the layer 0"):
            Flattening(tree).add(io.BytesIO(damaged), "0")
