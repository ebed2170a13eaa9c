"""`boincvm setup`: installs the best hypervisor for this host, with the system's packages."""

import argparse
import subprocess

from boincvm.cli import checks
from boincvm.cli.controller_options import waiting
from boincvm.cli.output import print_json
from boincvm.errors import HostError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.host.distribution import distribution
from boincvm.host.programs import find_program
from boincvm.host.users import is_root
from boincvm.host.virtualization import accelerator_remedy
from boincvm.hypervisor.installation import PackageManager, install_command, package_manager
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.ranking import Ranked, best, rank
from boincvm.standard_error import is_terminal, write_line

_DESCRIPTION = """\
Install the best hypervisor for this host with the system's package manager. The command is
shown first and runs when you say yes. Nothing is installed if a job can run already.
"""
_EXAMPLES = """\
examples:
  boincvm setup
  boincvm setup --dry-run       (show the command, and do nothing)
  boincvm setup --yes           (ask nothing, for scripts)
  boincvm setup --driver libvirt  (libvirt beside QEMU, on Debian and Ubuntu)
"""


_LIBVIRT = "libvirt"
_BINDING_HINT = (
    "pip install 'boincvm[libvirt]' brings its Python binding, in the environment of boincvm;"
    " boincvm doctor says what else is missing"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument("--dry-run", action="store_true", help="show the command, and do nothing")
    parser.add_argument("--yes", action="store_true", help="run the command without asking")
    parser.add_argument(
        "--driver", choices=[_LIBVIRT], help="install what this driver needs, not the best one"
    )
    parser.add_argument("--json", action="store_true", help="the command as JSON, with --dry-run")


def run(arguments: argparse.Namespace) -> int:
    """Install what is missing; return 0 if a job can run then. Raises BoincvmError."""
    if arguments.json and not arguments.dry_run:
        raise UsageError("--json goes with --dry-run only", hint="boincvm setup --dry-run --json")
    found = _working(arguments.driver)
    if found is not None:
        return _nothing_to_do(found, as_json=arguments.json)
    manager = package_manager(distribution())
    command = _command(manager, arguments.driver)
    if arguments.json:
        print_json({"installed": None, "command": command})
        return ExitCode.SUCCESS
    print(" ".join(command), flush=True)
    if arguments.dry_run:
        return ExitCode.SUCCESS
    if not arguments.yes and not _agrees():
        write_line("boincvm: nothing was installed")
        return ExitCode.HYPERVISOR_MISSING
    _install(command)
    found = _working(arguments.driver)
    if found is None:
        hint = _BINDING_HINT if arguments.driver else "boincvm doctor says why"
        raise HostError("it is installed, and no job can run yet", hint=hint)
    write_line(f"boincvm: {found.name} {found.verdict.version}: {found.reason}")
    return ExitCode.SUCCESS


def _working(driver: str | None) -> Ranked | None:
    """Return that driver if it works here, or the best one if none is named."""
    with waiting("examining this host"):
        verdicts, _ = checks.verdicts()
    ranked = rank(verdicts, Needs())
    if driver is None:
        return best(ranked)
    return next(
        (found for found in ranked if found.name == driver and found.verdict.is_usable), None
    )


def _command(manager: PackageManager, driver: str | None) -> list[str]:
    """Return the command that installs it. Raises HostError where nothing makes us root."""
    with_libvirt, has_kvm = driver == _LIBVIRT, not accelerator_remedy()

    def command(as_root: str | None) -> list[str]:
        return install_command(manager, has_kvm=has_kvm, as_root=as_root, with_libvirt=with_libvirt)

    if not manager.needs_root or is_root():
        return command(None)
    for name in ("sudo", "doas"):
        if find_program(name) is not None:
            return command(name)
    raise HostError(
        "only root may install packages, and there is no sudo",
        hint=f"as root: {' '.join(command(None))}",
    )


def _nothing_to_do(found: Ranked, *, as_json: bool) -> int:
    if as_json:
        print_json({"installed": found.name, "command": None})
    else:
        print(f"nothing to install: {found.name} {found.verdict.version} is here ({found.reason})")
    return ExitCode.SUCCESS


def _agrees() -> bool:
    if not is_terminal():
        raise UsageError(
            "there is no terminal to ask on", hint="boincvm setup --yes installs without asking"
        )
    try:
        return input("Run this command? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _install(command: list[str]) -> None:
    """Run the command on this terminal. Raises HostError."""
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        raise HostError(f"{command[0]} cannot be started: {error.strerror}") from error
    if code != 0:
        raise HostError(f"{command[0]} ended with {code}", hint="see its messages above")
