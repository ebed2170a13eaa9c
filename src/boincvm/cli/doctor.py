"""`boincvm doctor`: reports what works on this host, and how to fix what does not."""

import argparse
import shutil
import textwrap

from boincvm.cli import checks
from boincvm.cli.controller_options import waiting
from boincvm.cli.output import can_encode, print_json
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.doctor import Check, Status
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.ranking import Ranked, best, rank
from boincvm.job.model import CheckpointNeed

WANTED, NONE = CheckpointNeed.WANTED, CheckpointNeed.NONE
_NO_DRIVER = Check("drivers", Status.FAILED, "none is fit")
_DESCRIPTION = """\
Check everything that a job needs on this host; print what is missing and the command that
fixes it. The exit code is 0 if a job can run, else that of the first problem.
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
    parser.add_argument(
        "--clean",
        action="store_true",
        help="first remove what killed boincvm processes have left behind",
    )


def run(arguments: argparse.Namespace) -> int:
    """Examine the host and print the results; return 0 if a job can run."""
    removed = _clean() if arguments.clean else None
    # Drivers find out at the same time what takes long; their checks tell it then.
    with waiting("examining this host"):
        verdicts, troubles = checks.verdicts()
        before, of_drivers, after = (
            [check for name, function in group for check in checks.examine(name, function)]
            for group in checks.groups()
        )
    rankings = {need: rank(verdicts, Needs(need)) for need in (WANTED, NONE)}
    before = [*before, *troubles]
    failed = [check for check in (*before, *after) if check.status is Status.FAILED]
    if best(rankings[WANTED]) is None:
        failed += [check for check in of_drivers if check.status is Status.FAILED] or [_NO_DRIVER]
    found = [*before, *of_drivers, *after]
    if arguments.json:
        print_json(
            {
                **({} if removed is None else {"removed": removed}),
                "can_run_jobs": not failed,
                "checks": [_as_table(check) for check in found],
                "drivers": {name: verdict.table() for name, verdict in verdicts.items()},
                "ranking": {
                    need.value: [_rank_table(driver) for driver in ranked]
                    for need, ranked in rankings.items()
                },
            }
        )
    else:
        for line in removed or ():
            print(line)
        columns = shutil.get_terminal_size().columns
        print(report(found, columns))
        print(ranking_report(rankings[WANTED], rankings[NONE], columns))
        print("a job cannot run here yet" if failed else "a job can run here")
    return failed[0].exit_code if failed else ExitCode.SUCCESS


def _clean() -> list[str]:
    from boincvm.cli.leftovers import remove_leftovers

    return remove_leftovers() or ["killed processes have left nothing behind"]


def _rank_table(ranked: Ranked) -> dict[str, object]:
    return {"driver": ranked.name, "is_fit": not ranked.refused, "reason": ranked.reason}


def ranking_report(wanted: list[Ranked], none: list[Ranked], columns: int) -> str:
    """Return the drivers for people, the best one first."""
    width = max((len(driver.name) for driver in wanted), default=0)
    lines = ["drivers, the best one first:"]
    for position, driver in enumerate(wanted, start=1):
        head = f"{'-' if driver.refused else position} {driver.name:{width}}  "
        remedy = driver.verdict.remedy if not driver.verdict.is_usable else ""
        texts = [driver.reason, *([f"-> {remedy}"] if remedy else [])]
        lines += _wrapped(head, texts, columns)
    fit = [[driver.name for driver in ranked if not driver.refused] for ranked in (wanted, none)]
    if fit[0] != fit[1]:
        lines.append(f"for a job without checkpoints: {', '.join(fit[1])}")
    return "\n".join(lines)


def _as_table(check: Check) -> dict[str, str]:
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
    lines: list[str] = []
    for check in found:
        head = f"{signs[check.status]} {check.name:{width}}  "
        lines += _wrapped(
            head, [check.detail, *([f"-> {check.remedy}"] if check.remedy else [])], columns
        )
    return "\n".join(lines)


def _wrapped(head: str, texts: list[str], columns: int) -> list[str]:
    """Return the texts as lines of at most `columns`, the first one after `head`."""
    lines: list[str] = []
    margin = " " * len(head)
    for text in texts:
        lines += textwrap.wrap(
            text,
            max(columns, len(head) + 20),
            initial_indent=head,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        head = margin
    return lines
