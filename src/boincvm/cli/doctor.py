"""`boincvm doctor`: reports what works on this host, and how to fix what does not."""

import argparse
import shutil
import textwrap

from boincvm.cli import checks
from boincvm.cli.output import can_encode, print_json
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.doctor import Check, Status

_DESCRIPTION = """\
Check everything that a job needs on this host; print what is missing and the command that
helps. The exit code is 0 if a job can run, else that of what prevents it.
"""
_EXAMPLES = """\
examples:
  boincvm doctor
  boincvm doctor --json
"""
_SIGNS = {Status.OK: "✓", Status.WARNING: "!", Status.FAILED: "✗"}
_PLAIN_SIGNS = {Status.OK: "+", Status.WARNING: "!", Status.FAILED: "x"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument("--json", action="store_true", help="the findings as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Examine the host and print the results; return 0 if a job can run."""
    found = [check for name, look in checks.look_ups() for check in checks.examine(name, look)]
    failed = [check for check in found if check.status is Status.FAILED]
    if arguments.json:
        print_json({"can_run_jobs": not failed, "checks": [_told(check) for check in found]})
    else:
        print(report(found, shutil.get_terminal_size().columns))
    return failed[0].exit_code if failed else ExitCode.SUCCESS


def _told(check: Check) -> dict[str, str]:
    return {
        "name": check.name,
        "status": check.status,
        "detail": check.detail,
        "remedy": check.remedy,
    }


def report(found: list[Check], columns: int) -> str:
    """Return the list for people, with the names aligned."""
    signs = _SIGNS if can_encode("".join(_SIGNS.values())) else _PLAIN_SIGNS
    width = max(len(check.name) for check in found)
    margin = " " * (width + 4)
    lines: list[str] = []
    for check in found:
        head = f"{signs[check.status]} {check.name:{width}}  "
        texts = [check.detail, *([f"-> {check.remedy}"] if check.remedy else [])]
        for text in texts:
            lines += textwrap.wrap(
                text,
                max(columns, width + 24),
                initial_indent=head,
                subsequent_indent=margin,
                break_long_words=False,
                break_on_hyphens=False,
            )
            head = margin
    failed = any(check.status is Status.FAILED for check in found)
    lines.append("a job cannot run here yet" if failed else "a job can run here")
    return "\n".join(lines)
