"""The files of packaging/, checked by the programs that read them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.selector import parse_selector

PACKAGING = Path(__file__).parents[2] / "packaging"
LIMIT = 60


@pytest.mark.parametrize("name", ["boincvm-controller", "boincvm-machines"])
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    for unit in PACKAGING.glob("*.service"):  # one names the other
        text = unit.read_text()
        assert "/usr/bin/boincvm" in text
        # The only thing that it may miss is boincvm itself.
        (tmp_path / unit.name).write_text(text.replace("/usr/bin/boincvm", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / f"{name}.service")],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_machines_outlive_the_controller_s_unit() -> None:
    assert "\nKillMode=process\n" in (PACKAGING / "boincvm-controller.service").read_text()


def test_a_shutdown_saves_no_machines_of_other_hosts() -> None:
    unit = (PACKAGING / "boincvm-machines.service").read_text()
    (words,) = re.findall(r"(?m)^ExecStop=-/usr/bin/boincvm suspend --to-disk (.*)$", unit)
    selector = parse_selector(words.replace("%H", "here"))
    assert [
        selector.matches(Guest("1", "1", labels={"host": host})) for host in ("here", "there")
    ] == [True, False]


def test_logrotate_leaves_the_open_log_in_use(tmp_path: Path) -> None:
    directory = tmp_path / "machines/web.1"
    directory.mkdir(parents=True)
    text = (PACKAGING / "boincvm.logrotate").read_text()
    location = "/var/lib/boincvm/data/controller/machines"
    assert location in text
    text = text.replace(location, str(tmp_path / "machines")).replace(
        "    su boincvm boincvm\n", ""
    )
    rules = tmp_path / "rules"
    rules.write_text(text)
    rules.chmod(0o644)
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert logrotate is not None, "the package logrotate is not installed"
    with (directory / "shim.log").open("ab", buffering=0) as log:  # as a shim has it
        log.write(b"first\n")
        subprocess.run(
            [logrotate, "--force", "--state", str(tmp_path / "state"), str(rules)],
            timeout=LIMIT,
            check=True,
        )
        log.write(b"second\n")
    assert (directory / "shim.log").read_bytes() == b"second\n"
    assert (directory / "shim.log.1").read_bytes() == b"first\n"
