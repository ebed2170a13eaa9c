"""What a folder for volunteers is made of: checked by digest before anything of it runs."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from boincvm.errors import ImageBuildError
from boincvm.project.bundle import inputs
from boincvm.project.bundle.inputs import InputCache, PyPIPackage

BACKEND = """\
import pathlib
exec(open("setup.py").read())
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = pathlib.Path(directory, "thing-1.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: thing\\nVersion: 1\\n")
    return info.name
"""
PROJECT = """\
[build-system]
requires = []
build-backend = "setuptools.build_meta"
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory in which pip looks for packages, and nowhere else."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return index


@pytest.fixture
def setuptools(index: Path) -> PyPIPackage:
    """Return a setuptools that runs setup.py and nothing else."""
    wheel = index / "setuptools-80.9.0-py3-none-any.whl"
    info = "setuptools-80.9.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("setuptools/__init__.py", "")
        archive.writestr("setuptools/build_meta.py", BACKEND)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: setuptools\nVersion: 80.9.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return pinned("setuptools==80.9.0", wheel)


@pytest.fixture
def source(index: Path, tmp_path: Path) -> PyPIPackage:
    """Return a package whose setup.py leaves the file `ran`."""
    archive = index / "thing-1.tar.gz"
    program = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in (("setup.py", program), ("pyproject.toml", PROJECT)):
            member = tarfile.TarInfo(f"thing-1/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return pinned("thing==1", archive)


def pinned(requirement: str, file: Path) -> PyPIPackage:
    content = file.read_bytes()
    return PyPIPackage(requirement, len(content), hashlib.sha256(content).hexdigest())


def test_an_archive_of_sources_is_fetched_with_the_pinned_setuptools(
    tmp_path: Path, setuptools: PyPIPackage, source: PyPIPackage, index: Path
) -> None:
    path = InputCache(tmp_path / "cache", None).source(source, setuptools)
    assert path.read_bytes() == (index / "thing-1.tar.gz").read_bytes()
    assert (tmp_path / "ran").exists()


def test_nothing_of_an_archive_of_sources_runs_before_its_digest_is_checked(
    tmp_path: Path, setuptools: PyPIPackage, source: PyPIPackage
) -> None:
    other = PyPIPackage(source.requirement, source.size, "0" * 64)
    with pytest.raises(ImageBuildError, match="thing==1"):
        InputCache(tmp_path / "cache", None).source(other, setuptools)
    assert not (tmp_path / "ran").exists()


def test_a_python_without_pip_is_reported(
    tmp_path: Path, setuptools: PyPIPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "find_spec", lambda _: None)
    with pytest.raises(ImageBuildError, match="needs pip") as caught:
        InputCache(tmp_path / "cache", None).wheel(setuptools)
    assert "ensurepip" in (caught.value.hint or "")
