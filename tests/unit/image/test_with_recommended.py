"""What packages recommend comes with those that were named, and not with what every image has;
what is spared does not come at all."""

import os
import subprocess
from pathlib import Path

import pytest

from boincvm.image import package_set, packages
from boincvm.image.architectures import AMD64
from boincvm.image.manifest import Recipe
from boincvm.image.package_set import PackageRequest
from boincvm.image.progress import Progress

APT = """#!/bin/sh -e
# apt-get's place: the first time it installs libc, the second time gcc, with what that recommends.
case "$*" in
*" install base")
    grep -A5 '^Package: spared-1$' "$ROOT/var/lib/dpkg/status" | grep -q '^Version: 999:0$'
    grep -A1 '^Package: spared-2$' "$ROOT/var/lib/dpkg/status" | grep -q ' ok installed$'
    echo "$DEBS/libc_1_amd64.deb" >>"$BOINCVM_CHOSEN" ;;
*"Install-Recommends=true install gcc")
    grep -q '^Package: libc$' "$ROOT/var/lib/dpkg/status"
    grep -q '^Package: spared-1$' "$ROOT/var/lib/dpkg/status"
    grep -q '^Status: install ok installed$' "$ROOT/var/lib/dpkg/status"
    echo "$DEBS/gcc_1_amd64.deb" >>"$BOINCVM_CHOSEN" ;;
*" install "*) exit 3 ;;
esac
"""
CONTROL = """Package: {name}
Version: 1
Architecture: amd64
Maintainer: nobody <nobody@example.org>
Description: nothing
"""


def test_what_is_not_named_counts_as_installed(tmp_path: Path) -> None:
    for directory in ("bin", "lists", "archives", "debs", "root/var/lib/dpkg"):
        (tmp_path / directory).mkdir(parents=True)
    for name in ("libc", "gcc"):
        control = tmp_path / name / "DEBIAN/control"
        control.parent.mkdir(parents=True)
        control.write_text(CONTROL.format(name=name))
        build_one = ["dpkg-deb", "--root-owner-group", "-b", name, f"debs/{name}_1_amd64.deb"]
        subprocess.run(build_one, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    apt = tmp_path / "bin/apt-get"
    apt.write_text(APT)
    apt.chmod(0o755)
    environment = {
        "PATH": f"{apt.parent}{os.pathsep}{os.environ['PATH']}",
        "ROOT": str(tmp_path / "root"),
        "DEBS": str(tmp_path / "debs"),
        "MMDEBSTRAP_APT_CONFIG": "",
        "BOINCVM_ARCHIVES": str(tmp_path / "archives"),
        "BOINCVM_LISTS": str(tmp_path / "lists"),
        "BOINCVM_CHOSEN": str(tmp_path / "chosen"),
        "BOINCVM_PACKAGES": "base",
        "BOINCVM_WITH_RECOMMENDED": "gcc",
        "BOINCVM_SPARED": "spared-1 spared-2",
        "BOINCVM_EXACT": "",
    }
    command = ["sh", str(packages._DOWNLOAD), str(tmp_path / "root")]
    subprocess.run(command, check=True, capture_output=True, timeout=30, env=environment)
    got = sorted(path.name for path in (tmp_path / "archives").iterdir())
    assert got == ["gcc_1_amd64.deb", "libc_1_amd64.deb"]


@pytest.mark.parametrize("recommends", [True, False])
def test_a_build_names_what_the_user_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recommends: bool
) -> None:
    asked: list[tuple[bool, tuple[str, ...]]] = []

    def fetch(
        wanted: tuple[str, ...],
        *_: object,
        with_recommended: tuple[str, ...],
        spared: tuple[str, ...],
    ) -> list[Path]:
        assert spared == ()
        asked.append(("gcc" in wanted, with_recommended))
        return []

    monkeypatch.setattr(package_set, "fetch_packages", fetch)
    recipe = Recipe(5, "bookworm", ("gcc",), "g", recommends=recommends)
    package_set.fetch_debian(tmp_path, PackageRequest(recipe, AMD64), Progress(None))
    first = (False, ("gcc",)) if recommends else (True, ())
    assert asked == [first, (False, ())]
