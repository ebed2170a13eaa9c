"""`boincvm map`: runs a program once for each of many inputs."""

import argparse
from pathlib import Path

from boincvm.cli import controller_options
from boincvm.cli.parser import Parser, option
from boincvm.cli.run import add_file_options, add_limit_options, add_machine_options
from boincvm.errors import UsageError
from boincvm.job.sweep import read_sweep
from boincvm.job.values import UnexpectedValueError, describe
from boincvm.standard_error import is_terminal

_RESULTS = Path("results")
_MOST_WORKERS = 1000
_OF_NEW_MACHINES = (
    "image",
    "memory",
    "cpus",
    "disk",
    "network",
    "driver",
    "boot_limit",
    "silence_limit",
)
_USAGE = "boincvm map [options] -- COMMAND [ARGUMENT ...] [::: INPUT ...] [:::: FILE ...]"
_DESCRIPTION = """\
Run a command once for each input, several at a time, in virtual machines of this host. {} in
the command, and in --input, --output, --stdin and --env, becomes the input. Each input's
program finds an empty working directory with its own files; machines are kept from one input
to the next. One line on standard error tells how each input ended; a program's output is
printed when it has ended. The exit code is the number of inputs that failed.
"""
_EXAMPLES = """\
::: begins a list of inputs, :::: one of files with an input on each line (- is standard input,
which is also read where there is no list). Several lists give all combinations, and {1} is the
input from the first; :::+ and ::::+ pair a list with the one before. {.} is the input without
its extension, {/} its last name, {//} its directory, {/.} its last name without extension, {#}
its number, {%} that of the worker.

Outputs go to a directory for each input: results/1, results/2, and so on, with the program's
stdout and stderr, beside results/joblog, which has a line for each that has ended.

examples:
  boincvm map -- ./sim.py {} ::: 1 2 3
  boincvm map -j 4 --input data --output out.txt -- ./sim.py {1} {2} ::: a b ::: 10 20 30
  boincvm map --input {} --output {.}.png --results plots -- ./plot.sh {} ::: *.csv
  boincvm map --results runs -- ./prog {} :::: inputs.txt
  boincvm map --results runs --resume -- ./prog {} :::: inputs.txt     (what has not ended yet)
  boincvm map --selector 'web.*' --output out.txt -- ./sim.py {} ::: 1 2 3     (a controller's)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    if isinstance(parser, Parser):
        parser.advice = "a command goes after --, like: boincvm map -- PROGRAM {} ::: 1 2 3; "
    parser.usage = _USAGE
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "-j",
        "--jobs",
        type=option(_workers),
        metavar="N",
        help="machines at a time (default: as many as the host has processors for them, or all"
        " that --selector matches)",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--results",
        type=Path,
        metavar="DIRECTORY",
        help=f"where results are kept (default: {_RESULTS} with --output, else nowhere)",
    )
    resume = results.add_mutually_exclusive_group()
    resume.add_argument(
        "--resume", action="store_true", help="run only the inputs that have not ended yet"
    )
    resume.add_argument(
        "--resume-failed", action="store_true", help="the same, and those that failed"
    )
    results.add_argument(
        "-k", "--keep-order", action="store_true", help="print output in the order of the inputs"
    )
    results.add_argument("--json", action="store_true", help="a line of JSON for each input")
    results.add_argument("--quiet", action="store_true", help="report only failures")
    files = parser.add_argument_group("files and environment of each input")
    add_file_options(files, stdin="none")
    fleet = parser.add_argument_group("the machines of a controller, in place of new ones")
    controller_options.completed(
        fleet.add_argument(
            "--selector",
            metavar="SELECTOR",
            help=f"run in those that run now: {controller_options.SELECTOR_HELP}",
        )
    )
    controller_options.add_controller(fleet)
    add_machine_options(parser.add_argument_group("new machines"))
    add_limit_options(parser.add_argument_group("limits (seconds, or like 90s, 10m, 2h)"))


def _workers(text: object) -> int:
    if isinstance(text, str) and text.isdecimal() and 1 <= int(text[:9]) <= _MOST_WORKERS:
        return int(text)
    raise UnexpectedValueError(describe(text), f"a whole number from 1 to {_MOST_WORKERS}")


def run(arguments: argparse.Namespace) -> int:
    """Run the sweep; return how many inputs failed, at most 101. Raises BoincvmError."""
    if arguments.command is None:
        raise UsageError(
            "found nothing to run, expected -- and a command",
            hint="like: boincvm map -- PROGRAM {} ::: 1 2 3; boincvm map --help shows examples",
        )
    sweep = read_sweep(arguments.command)
    from boincvm.runner.map import MapOptions, run_map
    from boincvm.runner.sweep_results import Resume

    resume = Resume.NONE
    if arguments.resume or arguments.resume_failed:
        resume = Resume.FAILED if arguments.resume_failed else Resume.UNFINISHED
    if arguments.results is None and (arguments.output or resume is not Resume.NONE):
        arguments.results = _RESULTS
    options = MapOptions(
        driver=arguments.driver,
        workers=arguments.jobs,
        results=arguments.results,
        resume=resume,
        keeps_order=arguments.keep_order,
        is_json=arguments.json,
        is_quiet=arguments.quiet,
        shows_progress=is_terminal() and not arguments.json,
    )
    if arguments.selector is None:
        if arguments.controller is not None:
            raise UsageError(
                "found --controller without --selector, expected both",
                hint="--selector names the machines, like --selector all",
            )
        return run_map(sweep, arguments, options)
    for name in _OF_NEW_MACHINES:
        if getattr(arguments, name) is not None:
            raise UsageError(
                f"found --{name.replace('_', '-')} with --selector, expected one of them",
                hint="the machines of a controller are as boincvm create has made them",
            )
    from boincvm.fleet.map import run_fleet_map

    client = controller_options.client_of(arguments)
    return run_fleet_map(sweep, arguments, options, client, arguments.selector)
