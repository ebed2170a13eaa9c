"""`boincvm run`: runs a job from the command line or from a job file."""

import argparse
from pathlib import PurePosixPath

from boincvm.cli.parser import Parser, option
from boincvm.cli.shared_input import SharedInput
from boincvm.errors import UsageError
from boincvm.exit_codes import ExitCode
from boincvm.job import values
from boincvm.job.files import unsent_files
from boincvm.job.model import Job, Limits, MachineShape, MachineTask
from boincvm.job.run_arguments import COMMAND_ADVICE, job_from_arguments
from boincvm.standard_error import is_terminal, write_line

_SHAPE = MachineShape()
_LIMITS = Limits()
_CHECKPOINT_PERIOD = 600.0

_USAGE = """\
boincvm run [options] -- COMMAND [ARGUMENT ...]
       boincvm run [options] JOB.toml
       boincvm run [options] --image NAME     the own command of a container's image"""
_DESCRIPTION = """\
Run a program in a virtual machine that starts for it and is gone with it. The program works
in a directory of its own; --input puts files there, --output brings files back. Its output
streams as it is written, its standard input is yours, Ctrl-C ends it, and its exit code
becomes the exit code of boincvm run.
"""
_EXAMPLES = """\
A program given as a path, like ./prog, is copied in automatically.

examples:
  boincvm run -- uname -a
  boincvm run --image sci --input number.txt --output result.txt -- ./factor.sh number.txt
  echo 91 | boincvm run --image sci --time-limit 2h -- ecm 1e5
  while read n; do boincvm run -n -- ./prog "$n"; done <list
  boincvm run --resumable -- ./simulation      Ctrl-C keeps it on disk, and it goes on with:
  boincvm run --resume
  boincvm run -t -- bash                       a shell in a machine, on your own terminal
  boincvm run job.toml
  boincvm run --memory 4G job.toml        (options override what the job file says)

boincvm help job-toml describes job files, boincvm help exit-codes the exit codes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    if isinstance(parser, Parser):
        parser.advice = COMMAND_ADVICE
    parser.usage = _USAGE
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument("job_file", nargs="*", metavar="JOB.toml", help="a job file")
    machine = parser.add_argument_group("the machine")
    add_machine_options(machine)
    machine.add_argument(
        "--publish",
        action="append",
        type=option(values.port_forward),
        metavar="HOST:GUEST",
        help="forward port HOST of 127.0.0.1 to the guest's port GUEST (TCP); the guest then"
        " has a network; may be repeated",
    )
    machine.add_argument(
        "--remote-desktop",
        action="store_true",
        help="serve the machine's screen on 127.0.0.1, with a password that is printed; only with"
        " --driver virtualbox and Oracle's extension pack",
    )
    files = parser.add_argument_group("files and environment (not with a job file)")
    add_file_options(files, stdin="your own")
    files.add_argument(
        "-n",
        "--no-stdin",
        action="store_true",
        help="no standard input, also with a job file; for a loop that reads its own",
    )
    files.add_argument(
        "-t",
        "--terminal",
        action="store_true",
        help="give the program a terminal, which is yours meanwhile (default program: bash)",
    )
    add_limit_options(parser.add_argument_group("limits (seconds, or like 90s, 10m, 2h)"))
    _add_resume_options(parser.add_argument_group("long jobs"))
    printing = parser.add_argument_group("what is printed")
    printing.add_argument("--json", action="store_true", help="results and errors as JSON")
    printing.add_argument("--quiet", action="store_true", help="no progress line")
    printing.add_argument(
        "-v", "--verbose", action="store_true", help="print which driver runs the machine, and why"
    )


def add_machine_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for the shape of a machine and its driver."""
    group.add_argument(
        "--image",
        type=option(values.image_name),
        metavar="NAME",
        help=f"the image to start from (default: {_SHAPE.image}); boincvm image ls lists them",
    )
    group.add_argument(
        "--memory", type=option(values.memory), metavar="SIZE", help="like 2G (default: 512M)"
    )
    group.add_argument(
        "--cpus",
        type=option(lambda text: values.cpus(_number(text))),
        metavar="N",
        help=f"virtual processors (default: {_SHAPE.cpus})",
    )
    group.add_argument(
        "--disk", type=option(values.disk), metavar="SIZE", help="like 8G (default: the image's)"
    )
    group.add_argument(
        "--network",
        action=argparse.BooleanOptionalAction,
        help="let the guest reach the network (default: it cannot)",
    )
    group.add_argument(
        "--driver",
        type=option(values.driver_name),
        metavar="NAME",
        help="what runs the machine: qemu (the default); auto: what boincvm doctor finds best;"
        " virtualbox; libvirt; vmware, which is untested; uml, which is User-mode Linux: the host's"
        " own speed without hardware virtualization, but no network and one processor",
    )


def add_file_options(group: argparse._ArgumentGroup, *, stdin: str) -> None:
    """Add the options for files; `stdin`: what the program's standard input is without one."""
    group.add_argument(
        "--input",
        action="append",
        metavar="PATH",
        help="a file or directory to copy in, or a pattern like '*.csv'; . is all that is here; one"
        " from another directory keeps only its last name",
    )
    group.add_argument(
        "--output",
        action="append",
        metavar="PATH[:DESTINATION]",
        help="a file or directory to copy back, to DESTINATION if one is named, or a pattern like"
        " 'out/*.txt'; a DESTINATION that ends with / is a directory",
    )
    group.add_argument(
        "--replace",
        action="store_true",
        help="replace directories with contents where outputs go (files always are)",
    )
    group.add_argument(
        "--directory",
        metavar="PATH",
        help="where the program starts, beneath its working directory (default: there)",
    )
    group.add_argument(
        "--env", action="append", metavar="NAME=VALUE", help="an environment variable"
    )
    group.add_argument(
        "--stdin", metavar="FILE", help=f"the program's standard input (default: {stdin})"
    )


def add_limit_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for how long each step may take."""
    limit = option(values.duration)
    group.add_argument(
        "--time-limit",
        type=limit,
        metavar="TIME",
        help=f"for each task, which then has {_LIMITS.stop:g} s to save its work (default: none)",
    )
    group.add_argument(
        "--boot-limit",
        type=limit,
        metavar="TIME",
        help=f"until the guest answers (default: {_LIMITS.boot:g})",
    )
    group.add_argument(
        "--silence-limit",
        type=limit,
        metavar="TIME",
        help=f"without any sign of life from the guest (default: {_LIMITS.silence:g})",
    )


def _add_resume_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--resumable",
        action="store_true",
        help="save the machine to disk at Ctrl-C, at a signal and periodically, to resume it later",
    )
    group.add_argument(
        "--name",
        metavar="NAME|DIRECTORY",
        help="the job's name (default: the program's); with a slash: its directory",
    )
    group.add_argument(
        "--checkpoint-period",
        type=option(values.duration),
        metavar="TIME",
        default=_CHECKPOINT_PERIOD,
        help=f"between two checkpoints (default: {_CHECKPOINT_PERIOD:g}, at least 60)",
    )
    group.add_argument(
        "--resume",
        metavar="NAME|DIRECTORY",
        nargs="?",
        const="",
        help="continue a job that was interrupted (default: the only one)",
    )
    group.add_argument("--discard", metavar="NAME|DIRECTORY", help="remove a saved job")


def _number(text: object) -> object:
    is_number = isinstance(text, str) and text.isdecimal() and len(text) < 10
    return int(text) if isinstance(text, str) and is_number else text


def run(arguments: argparse.Namespace) -> int:
    """Run the job; return the program's exit code. Raises BoincvmError for all failures of ours."""
    if arguments.terminal:
        _check_terminal(arguments)
    if arguments.resumable or arguments.resume is not None or arguments.discard is not None:
        from boincvm.cli import resumable

        return resumable.run(arguments)
    if arguments.name is not None:
        raise UsageError("found --name without --resumable", hint="add --resumable")
    own = None
    if arguments.command is None and not arguments.job_file and arguments.image is not None:
        from boincvm.cli.image_oci import command_of

        own = command_of(arguments.image)
        arguments.command = None if own is None else list(own.argv)
    job = job_from_arguments(arguments)
    if own is not None and arguments.directory is None:
        tasks = (task._replace(directory=PurePosixPath(own.directory)) for task in job.tasks)
        job = job._replace(tasks=tuple(tasks))
    from boincvm.runner.run import run_job

    show_progress = not arguments.quiet and not arguments.json and is_terminal()
    shared = SharedInput()
    code = run_job(
        job,
        json_output=arguments.json,
        show_progress=show_progress,
        driver=arguments.driver,
        is_verbose=arguments.verbose,
        has_terminal=arguments.terminal,
    )
    if not arguments.json and not arguments.quiet:
        shared.report_consumed("run")
    if code != ExitCode.SUCCESS and not arguments.json:
        _report_unsent_files(job)
    return code


def _check_terminal(arguments: argparse.Namespace) -> None:
    """Check what is given together with -t; let it run a shell by default. Raises UsageError."""
    from boincvm.guestlink.terminal.local import check_terminal

    for name in ("stdin", "no_stdin", "json", "resumable", "resume", "discard", "job_file"):
        if getattr(arguments, name) not in (None, False, []):
            option_name = "a job file" if name == "job_file" else f"--{name.replace('_', '-')}"
            raise UsageError(
                f"found {option_name} with -t, expected one of them",
                hint="like: boincvm run -t -- bash",
            )
    check_terminal(0, "-t", hint="leave -t out: the program then reads and writes as in a pipe")
    if arguments.command is None:
        arguments.command = ["bash"]


def _report_unsent_files(job: Job[MachineTask]) -> None:
    import shlex

    for name in unsent_files(job)[:3]:
        write_line(
            f"boincvm: {name!r} exists here, but was not sent to the machine\n"
            f"  send it with --input {shlex.quote(name)}"
        )
