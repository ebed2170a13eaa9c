"""A Dockerfile becomes an image, as docs/images.md says under "From a Dockerfile"."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.image.store import ImageStore
from support.command_line import BOINCVM
from support.containers import Entry, oci_archive, tar_of

# The first build makes the image of the machines that build, and may wait for others that fetch
# packages; it is cached among the tests' images.
pytestmark = pytest.mark.timeout(1200)

PAGE = Path(__file__).parents[2] / "docs/images.md"
NAME = "test-dockerfile"
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


def boincvm(line: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BOINCVM, *shlex.split(line)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )


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
def directory(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / ".dockerignore").write_text("*\n!data*\n*.old\n")
    for name in ("data.txt", "data.old", "secret"):
        (tmp_path / name).touch()
    yield tmp_path
    store = ImageStore()
    if NAME in store.names():
        store.remove(NAME)


def test_the_page_is_true(directory: Path, base: Path) -> None:
    """Build the page's way, with a base image that is in a file: tests reach no registry."""
    section = PAGE.read_text().partition("## From a Dockerfile\n")[2].partition("\n## ")[0]
    build, run = re.findall(r"^\$ boincvm (.*) app$", section, re.MULTILINE)
    before = os.listdir(ImageStore().builds)
    options = f"--base-image tools:1={base} --build-arg WHO=me --target made"
    built = boincvm(f"{build} {options} {NAME}", directory)
    assert built.returncode == 0, built.stderr
    assert "STEP 4/6: COPY . /src/" in built.stderr
    assert set(os.listdir(ImageStore().builds)) <= {*before, "lock"}
    ran = boincvm(f"{run} {NAME}", directory)
    assert ran.stdout == "data.txt\nmade by me\n", ran.stderr


def test_a_step_that_fails(directory: Path, base: Path) -> None:
    options = f"--base-image tools:1={base} --target tools"
    line = f"image build --from-dockerfile {directory} {options} {NAME}"
    failed = boincvm(line, directory.parent)
    assert failed.returncode == 222
    assert 'STEP 2/2: RUN ["/bin/make-it", "/nowhere/made"] ended with 7' in failed.stderr
    assert "    no /nowhere/made\n" in failed.stderr
    assert NAME not in ImageStore().names()
