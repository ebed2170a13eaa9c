"""`boincvm image shrink`: a smaller image, which does for one app what the original does."""

import argparse

from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb, option
from boincvm.job import values

_SHRINK = """\
Make a smaller image of another one, which stays as it is. Without a command, what the disk does
not use any more is left out. With a command, it runs in a machine, files that it does not touch
are left out, and it runs in a machine of the new image: if it does not end in the same way there,
print the same, and write the same files, no image is made. Choose a command that uses all that the
app may ever use.

examples:
  boincvm image shrink --as ecm sci -- sh -c 'echo 1234567891011 | ecm 1000'
  boincvm image shrink --as web-clean web
"""


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb and its options."""
    shrink = add_verb(verbs, "shrink", "make a smaller image, for one app", _SHRINK)
    shrink.add_argument("name", metavar="NAME")
    shrink.add_argument(
        "--as", metavar="NEW", dest="new_name", help="the new image's name; default: NAME-small"
    )
    shrink.add_argument(
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        help="a file that the command writes in /work and that must be the same; repeatable",
    )
    shrink.add_argument(
        "--memory",
        type=option(values.memory),
        metavar="SIZE",
        help="of the machines; default: 512M, or what the image needs",
    )
    shrink.add_argument(
        "--limit",
        type=option(values.duration),
        metavar="TIME",
        help="the time that the command may take; default: 1h",
    )
    shrink.add_argument(
        "--dry-run", action="store_true", help="only find out what would be left out, and tell"
    )
    shrink.add_argument("--force", action="store_true", help="replace an image NEW that exists")


def shrink(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    from dataclasses import asdict

    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.image.shrink import LIMIT, Command, shrink_image
    from boincvm.image.store import ImageStore
    from boincvm.machine.build_machine import booted
    from boincvm.sizes import format_size

    limit = LIMIT if arguments.limit is None else arguments.limit
    command = Command(tuple(arguments.command or ()), tuple(arguments.output), limit)
    store = ImageStore()
    with terminable(), store.open(arguments.name) as image:
        done = shrink_image(
            image,
            arguments.new_name or f"{arguments.name}-small",
            store,
            command if command.argv else None,
            memory=arguments.memory or 0,
            force=arguments.force,
            is_trial=arguments.dry_run,
            boot=booted,
            progress=to_standard_error(),
        )
    if arguments.json:
        print_indented_json(asdict(done))
        return 0
    count = f"{len(done.removed)} of {done.files} files"
    if arguments.dry_run:
        for name in done.removed:
            print(f"/{name}")
        print(f"{count} would be left out, {format_size(done.removed_bytes)}")
    else:
        print(
            f"image {done.name} has been made: {done.digest[:12]}, {format_size(done.after)}"
            f" instead of {format_size(done.before)}"
        )
        print(f"  without {count}, {format_size(done.removed_bytes)}")
    return 0
