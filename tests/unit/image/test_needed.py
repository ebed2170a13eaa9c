"""Which packages an image needs, and what else is left out of it."""

from pathlib import Path

from boincvm.image.exclude import is_unread, remove_unused
from boincvm.image.manifest import Package
from boincvm.image.needed import needed_names, remove_spared_modules
from boincvm.image.tree import Tree
from boincvm.image.unpack import Control

KERNEL = "linux-image-6.1.0-57-cloud-amd64"
CONTROLS = (
    ("linux-image-cloud-amd64", f"Depends: {KERNEL} (= 6.1.1-1)"),
    (KERNEL, "Depends: kmod, linux-base (>= 4), initramfs-tools | linux-initramfs-tool"),
    ("kmod", "Depends: libc6 (>= 2.34), libkmod2"),
    ("libkmod2", "Depends: libc6"),
    ("linux-base", ""),
    ("initramfs-tools", "Provides: linux-initramfs-tool\nDepends: udev"),
    ("udev", "Depends: libc6, adduser"),
    ("adduser", "Depends: passwd"),
    ("passwd", ""),
    ("libc6", "Depends: libgcc-s1,\n libcrypt1:any (>= 1:4.1)\nDescription: udev"),
    ("libgcc-s1", ""),
    ("libcrypt1", ""),
    ("mawk", "Provides: awk"),
    ("base-files", "Pre-Depends: awk\nEssential: no"),
    ("bash", "Essential: yes\nRecommends: adduser"),
    ("usr-is-merged", ""),
    ("python3", "Depends: libpython3.11-stdlib"),
    ("libpython3.11-stdlib", "Depends: libc6, libnsl2, libtirpc3, libdb5.3"),
    ("libnsl2", "Depends: libtirpc3"),
    ("libtirpc3", "Depends: libkrb5-3"),
    ("libkrb5-3", ""),
    ("libdb5.3", ""),
)

GCONV = b"# comment\nalias\tUTF16//\tUTF-16//\nmodule\tUTF-16//\tINTERNAL\tUTF-16\t1\n"


def control(name: str, text: str) -> Control:
    package = Package(name, "1", "amd64", scripts=False)
    return Control(f"Package: {name}\n{text}", package, False, 0, {})


def needed(*wanted: str, recommends: bool = False, are_configured: bool = False) -> frozenset[str]:
    controls = [control(*one) for one in CONTROLS]
    return needed_names(controls, wanted, recommends=recommends, are_configured=are_configured)


def test_what_only_the_kernels_package_depends_on_is_left_out() -> None:
    assert needed("libc6") == {KERNEL, "libc6", "libgcc-s1", "libcrypt1"}


def test_what_somebody_asked_for_stays_with_all_it_depends_on() -> None:
    found = needed("udev")
    assert {"udev", "adduser", "passwd", "libc6"} <= found
    assert "kmod" not in found


def test_a_provider_is_needed_for_the_name_that_it_provides() -> None:
    assert {"base-files", "mawk"} <= needed("base-files")


def test_recommended_packages_are_needed_only_if_they_were_asked_for() -> None:
    assert "passwd" not in needed("bash")
    assert "passwd" in needed("bash", recommends=True)


def test_scripts_need_the_essential_packages() -> None:
    assert {"bash", "usr-is-merged"} <= needed(are_configured=True)
    assert "base-files" not in needed(are_configured=True)


def test_the_standard_library_does_without_kerberos_unless_dpkg_is_to_configure_it() -> None:
    spared = {"libnsl2", "libtirpc3", "libkrb5-3", "libdb5.3"}
    assert not needed("python3") & spared
    assert needed("python3", are_configured=True) >= spared
    assert needed("python3", "libnsl2") & spared == {"libnsl2", "libtirpc3", "libkrb5-3"}


def test_a_module_goes_with_its_packages(tmp_path: Path) -> None:
    tree = Tree.create(tmp_path / "tree")
    modules = [f"usr/lib/python3.11/lib-dynload/{name}.x.so" for name in ("nis", "_dbm", "math")]
    for name in modules:
        tree.add_file(name, b"")
    remove_spared_modules(tree, ["libdb5.3", "libc6"])
    assert [tree.exists(name) for name in modules] == [False, True, True]


def test_rare_character_sets_are_left_out_where_no_scripts_have_run(tmp_path: Path) -> None:
    tree = Tree.create(tmp_path / "tree")
    lists = ("gconv-modules.cache", "gconv-modules.d/gconv-modules-extra.conf")
    names = ("gconv-modules", "UTF-16.so", "EUC-JP.so", "libJIS.so", *lists)
    files = [f"usr/lib/x86_64-linux-gnu/gconv/{name}" for name in names]
    for name in files:
        tree.add_file(name, GCONV)
    remove_unused(tree, are_configured=True)
    assert all(map(tree.exists, files))
    remove_unused(tree, are_configured=False)
    assert [name for name in files if tree.exists(name)] == files[:2]


def test_pythons_own_tests_are_not_read() -> None:
    assert is_unread("usr/lib/python3.11/test/support/__init__.py")
    assert is_unread("usr/lib/python3.11/pydoc_data/topics.py")
    assert not is_unread("usr/lib/python3.11/unittest/case.py")
    assert not is_unread("usr/lib/python3/dist-packages/numpy/test/a.py")
