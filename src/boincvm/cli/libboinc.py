"""`boincvm libboinc`: writes BOINC's API for programs in a machine, as source to compile."""

import argparse
import shlex
from pathlib import Path

from boincvm.cli.output import print_json
from boincvm.errors import OutputFileError
from boincvm.exit_codes import ExitCode

_DESCRIPTION = """\
Write BOINC's API into a directory: headers and C source for applications in C and C++, and
boinc.py for those in Python. An application that was written for BOINC is compiled with it
unchanged, and then runs in a virtual machine, where it reports its progress, checkpoints,
trickles and its end; it also runs where nobody listens.
"""
_EXAMPLES = """\
examples:
  boincvm libboinc libboinc
  gcc -O2 -pthread -Ilibboinc -o app app.c libboinc/*.c
  boincvm run --input in --output out -- ./app

boincvm help libboinc describes what it has and what it has not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "directory", metavar="DIRECTORY", type=Path, help="created if it does not exist"
    )
    parser.add_argument("--force", action="store_true", help="replace files that differ")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write the files and tell how to compile with them. Raises OutputFileError, OSError."""
    directory: Path = arguments.directory
    sources = _sources()
    if not arguments.force:
        _refuse_to_replace(directory, sources)
    written = _write(directory, sources)
    commands = _commands(directory)
    if arguments.json:
        print_json(
            {
                "directory": str(directory),
                "files": list(sources),
                "written": written,
                "compile": commands,
            }
        )
    else:
        print(f"{len(sources)} files are in {directory}, of which {len(written)} were written now")
        for language, command in commands.items():
            print(f"  {language + ':':8}{command}")
    return ExitCode.SUCCESS


def _sources() -> dict[str, bytes]:
    from boincvm.image.agent_files import guest_directory

    directory = guest_directory() / "libboinc"
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.suffix in (".h", ".c", ".py", ".md")
    }


def _refuse_to_replace(directory: Path, sources: dict[str, bytes]) -> None:
    for name, content in sources.items():
        path = directory / name
        if path.exists() and (not path.is_file() or path.read_bytes() != content):
            raise OutputFileError(
                f"{path} already exists with other content",
                hint="name another directory, or replace such files with --force",
            )


def _write(directory: Path, sources: dict[str, bytes]) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in sources.items():
        path = directory / name
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
            written.append(name)
    return written


def _commands(directory: Path) -> dict[str, str]:
    quoted = shlex.quote(str(directory))
    return {
        "C": f"gcc -O2 -pthread -I{quoted} -o app app.c {quoted}/*.c",
        "C++": f"gcc -O2 -pthread -c {quoted}/*.c && "
        f"g++ -O2 -pthread -I{quoted} -o app app.cpp boinc_*.o",
        "Python": f"cp {quoted}/boinc.py .  # beside the program; then: import boinc",
    }
