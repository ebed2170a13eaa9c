"""`boincvm image build --from-oci`: images from containers."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.image.build import Built
    from boincvm.image.oci.commands import OwnCommand

_NOT_OF_CONTAINERS = {
    "image_name": "name",
    **{name: name for name in ("update", "package", "recommends", "pip", "file", "suite")},
}
"""Options of `image build`, by their attributes, that have no meaning for a container."""


def add_arguments(build: argparse.ArgumentParser) -> None:
    """Add the options to `boincvm image build`."""
    build.add_argument(
        "--from-oci",
        metavar="FILE",
        help="make the image NAME of the container in this archive, which docker save, podman save"
        " or skopeo has written; with --mirror, --architecture, --kernel and --if-missing alone",
    )
    build.add_argument(
        "--from-dockerfile",
        metavar="DIRECTORY",
        help="not possible yet: build the container where you have docker or podman, and save it",
    )


def is_asked_for(arguments: argparse.Namespace) -> bool:
    """Tell whether an image is to be made of a container."""
    return arguments.from_oci is not None or arguments.from_dockerfile is not None


def build(arguments: argparse.Namespace) -> "Built":
    """Build the image of a container. Raises BoincvmError."""
    from boincvm.image.architectures import AMD64
    from boincvm.image.build import DEBIAN
    from boincvm.image.interruption import terminable
    from boincvm.image.oci.build import build_container
    from boincvm.image.progress import to_standard_error
    from boincvm.machine.build_machine import booted

    if arguments.from_dockerfile is not None:
        raise UsageError(
            "boincvm does not build containers from a Dockerfile yet",
            hint=f"docker build -t app {arguments.from_dockerfile} && docker save -o app.tar app"
            " && boincvm image build --from-oci app.tar app (or podman in place of docker)",
        )
    for attribute, option in _NOT_OF_CONTAINERS.items():
        if getattr(arguments, attribute):
            raise UsageError(
                f"found --{option} with --from-oci, expected only the container",
                hint="what is to be in the image goes into the container: boincvm help images",
            )
    if arguments.name is None:
        raise UsageError(
            "found no name for the image",
            hint=f"like: boincvm image build --from-oci {arguments.from_oci} app",
        )
    with terminable():
        return build_container(
            arguments.name,
            Path(arguments.from_oci),
            mirror=arguments.mirror,
            architecture=arguments.architecture or AMD64.name,
            kernel=arguments.kernel or DEBIAN,
            if_missing=arguments.if_missing,
            boot=booted,
            progress=to_standard_error(),
        )


def print_command(built: "Built") -> None:
    """Print how to run a container's own command, if it has one."""
    from boincvm.image.oci.commands import own_command

    if own_command(built.manifest) is not None:
        print(f"its own command: boincvm run --image {built.name}")


def command_of(image: str) -> "OwnCommand | None":
    """Return the own command of the image's container, if it is one and has one.

    Raises BoincvmError.
    """
    from boincvm.image.oci.commands import own_command
    from boincvm.image.store import ImageStore

    with ImageStore().open(image) as opened:
        return own_command(opened.manifest)
