"""`boincvm image warm`: makes a golden snapshot of an image now."""

import argparse
import json
from pathlib import Path
from time import monotonic

from boincvm.cli.controller_options import waiting
from boincvm.cli.parser import option
from boincvm.host.processes import lower_priority
from boincvm.hypervisor.registry import DEFAULT
from boincvm.job import values
from boincvm.job.model import MachineShape

_SHAPE = MachineShape()
_LEAST_PRIORITY = 19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; they describe the machines that the snapshot is for."""
    parser.add_argument("name", metavar="NAME", nargs="?", default=_SHAPE.image)
    parser.add_argument("--memory", type=option(values.memory), default=_SHAPE.memory)
    parser.add_argument("--cpus", type=option(_cpus), default=_SHAPE.cpus)
    parser.add_argument("--disk", type=option(values.disk))
    parser.add_argument("--network", action="store_true")
    parser.add_argument(
        "--driver", default=DEFAULT, metavar="NAME", help=f"of the machines (default: {DEFAULT})"
    )
    parser.add_argument(
        "--controller", action="store_true", help="for machines of the controller, not for runs"
    )
    # Like a machine that runs under a BOINC client.
    parser.add_argument("--balloon", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--background", action="store_true", help="at the least priority")


def _cpus(text: object) -> int:
    return values.cpus(int(text) if isinstance(text, str) and text.isdecimal() else text)


def warm(arguments: argparse.Namespace) -> int:
    """Make the snapshot; return the exit code. Raises BoincvmError."""
    import asyncio

    from boincvm.image.store import ImageStore
    from boincvm.machine.admission import check_fits_host
    from boincvm.machine.golden.maker import warm_image

    if arguments.background:
        lower_priority()
    shape = MachineShape(
        arguments.name, arguments.memory, arguments.cpus, arguments.disk, arguments.network
    )
    check_fits_host(shape.memory, shape.cpus)
    begin = monotonic()
    with waiting(f"booting a machine of {shape.image}, from which others will start"):
        was_made = asyncio.run(
            warm_image(
                ImageStore(arguments.store),
                shape,
                balloon=arguments.balloon,
                durable=arguments.controller,
                driver_name=arguments.driver,
            )
        )
    seconds = round(monotonic() - begin, 1)
    if arguments.json:
        print(json.dumps({"name": shape.image, "made": was_made, "seconds": seconds}))
    elif was_made:
        print(f"machines of the image {shape.image} start from a snapshot now ({seconds} s)")
    else:
        print(f"the image {shape.image} already has its snapshot, or one is being made")
    return 0
