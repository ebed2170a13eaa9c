"""`boincvm bundle`: makes the folder from which volunteers run boincvm."""

import argparse
from pathlib import Path

from boincvm.cli.output import print_indented_json
from boincvm.exit_codes import ExitCode

_PLATFORMS = ("x86_64-pc-linux-gnu", "aarch64-unknown-linux-gnu", "windows_x86_64")
_DESCRIPTION = """\
Make a folder with boincvm, a Python of its own and all libraries that this needs, and pack it.
A computer runs it with nothing installed. It is the same each time: what it is made of is pinned by
digest. A file of it that was altered or truncated is told at the next start, and not run.
With --qemu: a folder with QEMU instead, which the wrapper takes from the app version.
What is not in the cache yet is downloaded first, some 10 to 50 MB; how much it is, is shown.
"""
_EXAMPLES = """\
examples:
  boincvm bundle --platform x86_64-pc-linux-gnu out/boincvm
  out/boincvm/boincvm-wrapper --version
  boincvm bundle --qemu out/qemu

boincvm help volunteer-folder tells what it holds, and how a BOINC project ships it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boincvm bundle`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--platform",
        choices=_PLATFORMS,
        default=_PLATFORMS[0],
        help=f"BOINC's name of the volunteers' system; default: {_PLATFORMS[0]}",
    )
    parser.add_argument(
        "--qemu", action="store_true", help="QEMU and its firmware, in place of boincvm"
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="the mirror to fetch Debian's packages from; default: the one that apt uses",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        help="the folder; its archive and, for Windows, the app version's main program are put"
        " beside it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make a folder and print what it is. Raises BoincvmError and OSError."""
    from boincvm.cli.help import pages_directory
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.project.bundle.build import (
        build_folder,
        build_qemu,
        export_bundle,
        export_qemu,
    )
    from boincvm.sizes import format_size

    platform: str = arguments.platform
    out = arguments.out.absolute()
    with terminable():
        progress = to_standard_error()
        if arguments.qemu:
            folder = build_qemu(platform, arguments.mirror, progress)
            bundle = export_qemu(folder, out, progress)
        else:
            folder = build_folder(platform, pages_directory(), arguments.mirror, progress)
            bundle = export_bundle(platform, folder, out, progress)
    if arguments.json:
        program = bundle.main_program
        main_program = {} if program is None else {"main_program": str(program)}
        print_indented_json(
            {
                "platform": platform,
                "content": "qemu" if arguments.qemu else "boincvm",
                "folder": str(bundle.folder),
                "size": bundle.size,
                "archive": str(bundle.archive),
                "archive_size": bundle.packed_size,
                "sha256": bundle.sha256,
                **main_program,
            }
        )
    else:
        print(f"{bundle.folder} has been made: {format_size(bundle.size)} for {platform}")
        print(f"packed: {bundle.archive}, {format_size(bundle.packed_size)}")
        print(f"SHA-256: {bundle.sha256}")
        if bundle.main_program is not None:
            print(f"main program: {bundle.main_program}")
    return ExitCode.SUCCESS
