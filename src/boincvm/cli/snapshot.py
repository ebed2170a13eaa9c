"""`boincvm snapshot`: handles snapshots of the controller's machines and checkpoints of jobs.

Such a job runs in a directory or a BOINC slot.
"""

import argparse
import json
from pathlib import Path

from boincvm.cli import controller_options, machine_snapshots
from boincvm.exit_codes import ExitCode
from boincvm.sizes import format_size
from boincvm.standard_error import write_line

_EPILOG = """\
VM is a machine of the controller: an id, a pattern like 'web.*', labels like 'site=cern', or all.
A target with a slash is a job's directory, and so is the name of a directory here, unless a machine
has it, too, or --vm is given.

examples:
  boincvm snapshot take web.1 before-upgrade
  boincvm snapshot ls web.1
  boincvm snapshot restore web.1              to the newest one
  boincvm snapshot rm web.1 before-upgrade
  boincvm snapshot take /var/lib/boinc-client/slots/0
  boincvm snapshot ls ./my-job
  boincvm snapshot export ./my-job my-job.snapshot
  boincvm snapshot import --check my-job.snapshot
  boincvm snapshot import my-job.snapshot ~/my-job && cd ~/my-job && boincvm-wrapper
"""
_TAKE_LIMIT = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and options of `boincvm snapshot`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    verbs = parser.add_subparsers(dest="snapshot_verb", metavar="VERB", required=True)
    take = verbs.add_parser(
        "take", help="take a snapshot of machines, or of a running job's machines"
    )
    _add_target(take)
    take.add_argument("name", metavar="NAME", nargs="?", help="the name of a machine's snapshot")
    take.add_argument("--description", metavar="TEXT", help="a one-line description")
    _add_target(verbs.add_parser("ls", help="list a machine's snapshots, or a job's checkpoints"))
    restore = verbs.add_parser("restore", help="restore machines from a snapshot")
    _add_machine(restore)
    restore.add_argument("name", metavar="NAME", nargs="?", help="which one (default: the newest)")
    remove = verbs.add_parser("rm", help="remove a machine's snapshot")
    _add_machine(remove)
    remove.add_argument("name", metavar="NAME", help="which")
    export = verbs.add_parser("export", help="write a job whose machines are saved into one file")
    export.add_argument("directory", metavar="DIRECTORY")
    export.add_argument("file", metavar="FILE")
    export.add_argument("--force", action="store_true", help="replace FILE if it exists")
    back = verbs.add_parser("import", help="make a directory from such a file, to continue there")
    back.add_argument("file", metavar="FILE")
    back.add_argument("directory", metavar="DIRECTORY", nargs="?")
    back.add_argument(
        "--check",
        action="store_true",
        help="only report whether it can continue here and what would need --trust",
    )
    back.add_argument(
        "--trust",
        action="store_true",
        help="import it even if its job runs programs on this computer or has a network;"
        " use this only if you know who made it",
    )
    for verb in (export, back):
        verb.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_argument(
        "target", metavar="VM|DIRECTORY", nargs="?", default=".", help="(default: this directory)"
    )
    controller_options.completed(target, controller_options.MACHINES_OR_DIRECTORIES)
    parser.add_argument("--vm", action="store_true", help="TARGET is a machine, not a directory")
    controller_options.add_common(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    controller_options.completed(
        parser.add_argument("target", metavar="VM", help=controller_options.SELECTOR_HELP)
    )
    controller_options.add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    of_jobs = {"take": _take, "ls": _list, "export": _export, "import": _import}
    of_machines = {
        "take": machine_snapshots.take,
        "ls": machine_snapshots.show,
        "restore": machine_snapshots.restore,
        "rm": machine_snapshots.remove,
    }
    verb = arguments.snapshot_verb
    if verb in ("restore", "rm") or (
        verb in ("take", "ls") and machine_snapshots.means_machines(arguments)
    ):
        return of_machines[verb](arguments)
    return of_jobs[verb](arguments)


def _take(arguments: argparse.Namespace) -> int:
    import asyncio

    from boincvm.wrapper.control_socket import ask_for_checkpoint

    with controller_options.waiting(f"saving the job in {arguments.target}"):
        answer = asyncio.run(ask_for_checkpoint(Path(arguments.target), _TAKE_LIMIT))
    if arguments.json:
        print(json.dumps(answer))
        return 0
    machines = answer.get("machines")
    for machine in machines if isinstance(machines, list) else ():
        print(
            f"{machine['machine']}: checkpoint {machine['checkpoint']},"
            f" {format_size(machine['written'])} written,"
            f" the guest was paused for {machine['pause'] * 1e3:.0f} ms"
        )
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from boincvm.wrapper.snapshot.listing import list_checkpoints

    found = list_checkpoints(Path(arguments.target))
    if arguments.json:
        print(json.dumps([entry._asdict() for entry in found]))
        return 0
    if not found:
        print("there are no checkpoints")
    for entry in found:
        size = format_size(entry.size)
        print(f"{entry.machine}  {entry.number:6}  {entry.made}  {size:>10}  {entry.state}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from boincvm.wrapper.snapshot.archive import check_directory, export

    directory, target = Path(arguments.directory), Path(arguments.file)
    check_directory(directory)
    with controller_options.waiting(f"writing {target}, and reading it back"):
        snapshot = export(directory, target, force=arguments.force)
    size = target.stat().st_size
    if arguments.json:
        print(json.dumps({"file": str(target), "size": size, "machines": snapshot.machines}))
    else:
        print(f"{target}: {format_size(size)}, read back and verified")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    import asyncio

    from boincvm.errors import UsageError
    from boincvm.wrapper.snapshot.archive import read_snapshot
    from boincvm.wrapper.snapshot.check import check_snapshot
    from boincvm.wrapper.snapshot.importer import import_snapshot, needs_trust
    from boincvm.wrapper.snapshot.trust import summary

    path = Path(arguments.file)
    if not arguments.check and arguments.directory is None:
        raise UsageError("found no DIRECTORY, expected the one to make", hint="or --check")
    with controller_options.waiting(f"checking {path}"):
        snapshot = read_snapshot(path)
        findings = asyncio.run(check_snapshot(snapshot, Path(arguments.directory or ".").parent))
    goes_on = all(finding.is_good for finding in findings)
    untrusted: list[str] = []
    if not arguments.check:
        with controller_options.waiting(f"unpacking {path}"):
            import_snapshot(path, Path(arguments.directory), trusted=arguments.trust)
    elif not arguments.trust:
        untrusted = needs_trust(path)
    if arguments.json:
        answer = {
            "goes_on": goes_on,
            "findings": [finding._asdict() for finding in findings],
            "needs_trust": untrusted,
        }
        print(json.dumps(answer))
    else:
        _print_findings(goes_on, [(finding.is_good, finding.what) for finding in findings])
        if untrusted:
            write_line(f"its job would {summary(untrusted)}: that needs --trust")
        if not arguments.check:
            print(f"{arguments.directory} has been created; boincvm-wrapper continues there")
    if untrusted:
        return ExitCode.INPUT_FILE
    return 0 if goes_on or not arguments.check else ExitCode.HYPERVISOR_FAILED


def _print_findings(goes_on: bool, findings: list[tuple[bool, str]]) -> None:
    for is_good, what in findings:
        print(f"{'ok ' if is_good else 'NO '} {what}")
    if goes_on:
        print("the job continues where it was")
    else:
        write_line("the job would start its task again from the beginning here")
