"""A Dockerfile becomes an image, as docs/images.md says under "From a Dockerfile"."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from support.command_line import BOINCVM
from support.containers import Entry, oci_archive, tar_of
from support.dockerfile_builder import ready_dockerfile_builder
from support.golden_home import link_images
from support.image_home import new_home

# The first time, the image of the machines that build is made; each time, images wait for others
# that fetch packages.
pytestmark = pytest.mark.timeout(1200)

PAGE = Path(__file__).parents[2] / "docs/images.md"
SOURCE = """\
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words)
{
    FILE *file = fopen(words[1], "w");
    if (!file) {
        printf("no %s\\n", words[1]);
        return 7;
    }
    fprintf(file, "made by %s\\n", getenv("WHO"));
    return fclose(file);
}
"""
DOCKERFILE = """\
FROM tools:1 AS tools
RUN ["/bin/make-it", "/nowhere/made"]

FROM scratch AS made
ARG WHO=nobody
COPY --from=tools:1 /bin/make-it /bin/make-it
COPY . /src/
RUN ["/bin/make-it", "/made"]
CMD ["sh", "-c", "cd /src && ls && cat /made"]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a user who has no other image than the machines' that build."""
    builder = ready_dockerfile_builder(tmp_path_factory)
    directory = tmp_path_factory.mktemp("home") / "of another user"
    environment = new_home(directory)
    link_images(directory / "data/images", builder)
    return environment


def boincvm(home: dict[str, str], line: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BOINCVM, *shlex.split(line)],
        cwd=directory,
        env=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )


def images(home: dict[str, str], kind: str) -> list[str]:
    return sorted(os.listdir(Path(home["BOINCVM_HOME"]) / "data/images" / kind))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive of a container with one static program."""
    work = tmp_path_factory.mktemp("base")
    (work / "make-it.c").write_text(SOURCE)
    program = work / "make-it"
    compiler = ["musl-gcc", "-static", "-Os", "-s", "-o", program, work / "make-it.c"]
    subprocess.run(compiler, check=True, timeout=120)
    layer = tar_of([Entry("bin/make-it", program.read_bytes(), mode=0o755)])
    return oci_archive(work / "tools.tar", [layer])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the context of a build."""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / ".dockerignore").write_text("*\n!data*\n*.old\n")
    for name in ("data.txt", "data.old", "secret"):
        (tmp_path / name).touch()
    return tmp_path


def test_the_page_is_true(home: dict[str, str], directory: Path, base: Path) -> None:
    """Build the page's way, with a base image that is in a file: tests reach no registry."""
    section = PAGE.read_text().partition("## From a Dockerfile\n")[2].partition("\n## ")[0]
    build, run = re.findall(r"^\$ boincvm (.*)$", section, re.MULTILINE)
    options = f"--base-image tools:1={base} --build-arg WHO=me --target made"
    built = boincvm(home, f"{build} {options}", directory)
    assert built.returncode == 0, built.stderr
    assert "STEP 4/6: COPY . /src/" in built.stderr
    assert images(home, "builds") == ["lock"]
    ran = boincvm(home, run, directory)
    assert ran.stdout == "data.txt\nmade by me\n", ran.stderr


def test_a_step_that_fails(home: dict[str, str], directory: Path, base: Path) -> None:
    options = f"--base-image tools:1={base} --target tools"
    line = f"image build --from-dockerfile {directory} {options} failed"
    failed = boincvm(home, line, directory.parent)
    assert failed.returncode == 222, failed.stderr
    assert 'STEP 2/2: RUN ["/bin/make-it", "/nowhere/made"] ended with 7' in failed.stderr
    assert "    no /nowhere/made\n" in failed.stderr
    assert "failed" not in images(home, "names")
    assert images(home, "builds") == ["lock"]
