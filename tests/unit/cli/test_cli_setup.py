"""`boincvm setup`: the right command for each system, shown first, and run after consent."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from boincvm.cli import checks, setup
from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode
from boincvm.host.distribution import distribution, names_of
from boincvm.hypervisor.installation import install_command, package_manager
from boincvm.hypervisor.verdict import Isolation, Speed, Verdict, unusable

GOOD = Verdict("7.2", isolation=Isolation.SANDBOX, speed=Speed.EMULATED)
DEBIAN = "apt-get install --no-install-recommends -y qemu-system-x86 qemu-utils util-linux"


@pytest.fixture
def host(monkeypatch, tmp_path):
    """Simulate a Debian of root without QEMU, with an apt-get that records its arguments."""
    installed = tmp_path / "installed"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text(f'#!/bin/sh\necho "$@" > {shlex.quote(str(installed))}\n')
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(setup, "distribution", lambda: ("debian",))
    monkeypatch.setattr(setup, "is_root", lambda: True)
    monkeypatch.setattr(setup, "accelerator_remedy", lambda: "")
    monkeypatch.setattr(setup, "is_terminal", lambda: True)

    def verdicts():
        return {"qemu": GOOD if installed.exists() else unusable("no qemu")}, []

    monkeypatch.setattr(checks, "verdicts", verdicts)
    return tmp_path


def answer(monkeypatch, text):
    def ask(prompt):
        if text is None:
            raise EOFError
        return text

    monkeypatch.setattr("builtins.input", ask)


def test_a_dry_run_shows_the_command_alone(host, capsys):
    assert main(["setup", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{DEBIAN}\n"
    assert not (host / "installed").exists()
    assert main(["setup", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == DEBIAN.split()


def test_who_agrees_has_it_installed(host, capfd, monkeypatch):
    answer(monkeypatch, "y")
    assert main(["setup"]) == 0
    out, errors = capfd.readouterr()
    assert out.startswith(f"{DEBIAN}\n")
    assert (host / "installed").read_text() == f"{DEBIAN.removeprefix('apt-get ')}\n"
    assert errors.startswith("boincvm: qemu 7.2: ")


@pytest.mark.parametrize("text", ["", "n", "nein", None])
def test_who_does_not_agree_has_nothing_installed(host, monkeypatch, text):
    answer(monkeypatch, text)
    assert main(["setup"]) == ExitCode.HYPERVISOR_MISSING
    assert not (host / "installed").exists()


def test_scripts_are_not_asked(host, monkeypatch, capfd):
    monkeypatch.setattr(setup, "is_terminal", lambda: False)
    assert main(["setup"]) == ExitCode.USAGE
    assert "boincvm setup --yes" in capfd.readouterr().err
    assert main(["setup", "--yes"]) == 0
    assert (host / "installed").exists()


def test_what_is_here_is_not_installed(host, capsys):
    (host / "installed").touch()
    assert main(["setup"]) == 0
    assert capsys.readouterr().out.startswith("nothing to install: qemu 7.2 is here")


def test_libvirt_where_it_is_asked_for(host, capfd, monkeypatch):
    (host / "installed").touch()  # QEMU is here, and does not count
    assert main(["setup", "--driver", "libvirt", "--dry-run"]) == 0
    command = capfd.readouterr().out.strip()
    assert command.startswith(f"{DEBIAN} libvirt-daemon libvirt-daemon-driver-qemu ")
    assert main(["setup", "--driver", "libvirt", "--yes"]) == ExitCode.HOST
    assert "pip install 'boincvm[libvirt]'" in capfd.readouterr().err
    assert (host / "installed").read_text() == f"{command.removeprefix('apt-get ')}\n"
    monkeypatch.setattr(checks, "verdicts", lambda: ({"qemu": GOOD, "libvirt": GOOD}, []))
    assert main(["setup", "--driver", "libvirt"]) == 0
    assert capfd.readouterr().out.startswith("nothing to install: libvirt 7.2 is here")
    assert main(["setup", "--driver", "uml"]) == ExitCode.USAGE


def test_libvirt_of_a_system_that_nobody_knows(host, monkeypatch, capfd):
    monkeypatch.setattr(setup, "distribution", lambda: ("fedora",))
    assert main(["setup", "--driver", "libvirt", "--dry-run"]) == ExitCode.HOST
    assert "packages of libvirt" in capfd.readouterr().err


def test_an_installation_that_fails(host, capfd):
    (host / "bin/apt-get").write_text("#!/bin/sh\necho no network >&2\nexit 100\n")
    assert main(["setup", "--yes"]) == ExitCode.HOST
    assert "apt-get ended with 100" in capfd.readouterr().err
    (host / "bin/apt-get").write_text("#!/bin/sh\n")
    assert main(["setup", "--yes"]) == ExitCode.HOST
    assert "no job can run yet" in capfd.readouterr().err
    (host / "bin/apt-get").unlink()
    assert main(["setup", "--yes"]) == ExitCode.HOST
    assert "apt-get cannot be started" in capfd.readouterr().err


def test_users_become_root_for_it(host, monkeypatch, capfd):
    monkeypatch.setattr(setup, "is_root", lambda: False)
    assert main(["setup", "--dry-run"]) == ExitCode.HOST
    assert f"as root: {DEBIAN}" in capfd.readouterr().err
    (host / "bin/sudo").write_text("#!/bin/sh\n")
    (host / "bin/sudo").chmod(0o755)
    assert main(["setup", "--dry-run"]) == 0
    assert capfd.readouterr().out == f"sudo {DEBIAN}\n"


def test_a_system_that_nobody_knows(host, monkeypatch, capfd):
    monkeypatch.setattr(setup, "distribution", lambda: ("plan9",))
    assert main(["setup", "--dry-run"]) == ExitCode.HOST
    assert "how plan9 installs packages" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("names", "command"),
    [
        (("debian",), DEBIAN),
        (("linuxmint", "ubuntu", "debian"), DEBIAN),
        (("fedora",), "dnf install -y qemu-system-x86-core qemu-img util-linux"),
        (("rocky", "rhel", "centos", "fedora"), "dnf install -y qemu-system-x86-core"),
        (("arch",), "pacman -S --needed --noconfirm qemu-system-x86 qemu-img util-linux"),
        (("opensuse-leap", "suse", "opensuse"), "zypper install --no-recommends -y qemu-x86"),
        (("macos",), "brew install qemu"),
        (
            ("windows",),
            "winget install --accept-package-agreements --accept-source-agreements --exact --id",
        ),
    ],
)
def test_the_command_of_each_system(names, command):
    made = install_command(package_manager(names), has_kvm=True, as_root=None)
    assert " ".join(made).startswith(command)
    with_root = install_command(package_manager(names), has_kvm=True, as_root="sudo")
    needs_root = names not in (("macos",), ("windows",))
    assert with_root == (["sudo", *made] if needs_root else made)


def test_without_kvm_there_is_something_faster_than_emulation():
    """It runs only in bubblewrap's sandbox."""
    made = install_command(package_manager(("ubuntu", "debian")), has_kvm=False, as_root=None)
    assert made[-2:] == ["user-mode-linux", "bubblewrap"]


def test_the_names_of_a_distribution():
    assert names_of('NAME="x"\nID=linuxmint\nID_LIKE="ubuntu debian"\n#=\n') == (
        "linuxmint",
        "ubuntu",
        "debian",
    )
    assert names_of("nothing\n") == ()


@pytest.mark.parametrize("with_libvirt", [False, True])
def test_debian_has_these_packages(with_libvirt):
    """Run the real command on the real system, without changing anything."""
    program = shutil.which("apt-get")
    assert program is not None, "these tests run on Debian"
    command = install_command(
        package_manager(distribution()), has_kvm=False, as_root=None, with_libvirt=with_libvirt
    )
    assert Path(program).name == command[0]
    done = subprocess.run(
        [program, "--simulate", *command[1:]],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "newly installed" in done.stdout
