"""The wheel works outside the checkout: it contains the agent, the recipes and the types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PROGRAM = """
import boincvm.image.agent_files as guest
from boincvm.image import build
import boincvm.runner.run
names = guest.agent_sources()
assert "boincvm_agent/agent.py" in names and "boincvm/bus/stomp.py" in names, names
assert guest.init_script().startswith(b"#!")
from boincvm.image.cloud import early, guest_program
assert early.early_archive() and guest_program.guest_program()
print(guest.__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory into which the wheel was installed, without its dependencies."""
    directory = tmp_path_factory.mktemp("wheel")
    options = ("--disable-pip-version-check", "-q", "--no-deps")
    for step in (["wheel", "--no-build-isolation", CHECKOUT], ["install", "--target", "site"]):
        command = [sys.executable, "-m", "pip", *step, *options, *directory.glob("*.whl")]
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=120)
    return directory / "site"


def test_the_installed_package_finds_the_guest_s_sources(installed: Path, tmp_path: Path) -> None:
    # Ahead of the checkout, which this environment has on its path by an editable install.
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))


def test_the_wheel_holds_what_is_no_python(installed: Path) -> None:
    package = installed / "boincvm"
    for name in ("py.typed", "image/download.sh", "_guest/init", "_docs/user-guide.md"):
        assert (package / name).is_file(), name
    licenses = list(installed.glob("boincvm-*.dist-info/licenses/LICENSE"))
    assert len(licenses) == 1
    assert "Apache License" in licenses[0].read_text()
