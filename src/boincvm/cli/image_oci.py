"""`boincvm image build --from-oci` and `--from-dockerfile`: images from containers."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli.parser import option
from boincvm.errors import UsageError
from boincvm.job import values
from boincvm.job.values import UnexpectedValueError, describe

if TYPE_CHECKING:
    from boincvm.image.build import Built
    from boincvm.image.oci.commands import OwnCommand

_NOT_OF_CONTAINERS = {
    "image_name": "name",
    **{name: name for name in ("update", "package", "recommends", "pip", "suite")},
}
"""Options of `image build`, by their attributes, that have no meaning for a container."""
_OF_DOCKERFILES = {
    "build_arg": "build-arg",
    "target": "target",
    "base_image": "base-image",
    "limit": "limit",
    "no_network": "no-network",
}
"""Options that have a meaning for a Dockerfile alone."""


def add_arguments(build: argparse.ArgumentParser) -> None:
    """Add the options to `boincvm image build`."""
    sources = build.add_mutually_exclusive_group()
    sources.add_argument(
        "--from-oci",
        metavar="FILE",
        help="make the image NAME of the container in this archive, which docker save, podman save"
        " or skopeo has written; with --mirror, --architecture, --kernel and --if-missing alone",
    )
    sources.add_argument(
        "--from-dockerfile",
        metavar="DIRECTORY",
        help="make the image NAME of the container that the Dockerfile in this directory describes:"
        " it is built in a machine with a network; --file names another Dockerfile",
    )
    build.add_argument(
        "--build-arg",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="with a Dockerfile: a value for its ARG NAME; repeatable",
    )
    build.add_argument(
        "--target", metavar="STAGE", help="with a Dockerfile: the stage to build, not the last one"
    )
    build.add_argument(
        "--base-image",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="with a Dockerfile: its FROM NAME is the container in this archive, which is as for"
        " --from-oci, and no registry is asked; repeatable",
    )
    build.add_argument(
        "--no-network",
        action="store_true",
        help="with a Dockerfile: what it runs reaches no network, and nothing comes of a registry",
    )
    build.add_argument(
        "--limit",
        type=option(_limit),
        metavar="TIME",
        help="with a Dockerfile: the time within which its container must be built; default: 1h",
    )


def is_asked_for(arguments: argparse.Namespace) -> bool:
    """Tell whether an image is to be made of a container.

    Raises UsageError for an option that only a Dockerfile gives a meaning.
    """
    if arguments.from_dockerfile is None:
        for attribute, option in _OF_DOCKERFILES.items():
            if getattr(arguments, attribute):
                raise UsageError(
                    f"found --{option} without --from-dockerfile",
                    hint="like: boincvm image build --from-dockerfile . app",
                )
    return arguments.from_oci is not None or arguments.from_dockerfile is not None


def build(arguments: argparse.Namespace) -> "Built":
    """Build the image of a container. Raises BoincvmError."""
    is_dockerfile = arguments.from_dockerfile is not None
    option = "--from-dockerfile" if is_dockerfile else "--from-oci"
    # With a Dockerfile, --file names it.
    others = _NOT_OF_CONTAINERS if is_dockerfile else {**_NOT_OF_CONTAINERS, "file": "file"}
    for attribute, other in others.items():
        if getattr(arguments, attribute):
            raise UsageError(
                f"found --{other} with {option}, expected only the container",
                hint="what is to be in the image goes into the container: boincvm help images",
            )
    if arguments.name is None:
        source = arguments.from_dockerfile if is_dockerfile else arguments.from_oci
        raise UsageError(
            "found no name for the image", hint=f"like: boincvm image build {option} {source} app"
        )
    return _build_dockerfile(arguments) if is_dockerfile else _build_archive(arguments)


def _build_archive(arguments: argparse.Namespace) -> "Built":
    from boincvm.image.architectures import AMD64
    from boincvm.image.build_inputs import DEBIAN
    from boincvm.image.interruption import terminable
    from boincvm.image.oci.build import build_container
    from boincvm.image.progress import to_standard_error
    from boincvm.machine.build_machine import booted

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


def _build_dockerfile(arguments: argparse.Namespace) -> "Built":
    from boincvm.image.architectures import AMD64
    from boincvm.image.build_inputs import DEBIAN
    from boincvm.image.interruption import terminable
    from boincvm.image.oci.base_images import parse_base_images
    from boincvm.image.oci.dockerfile import (
        DEFAULT_LIMIT,
        DockerfileBuild,
        build_dockerfile,
        read_arguments,
    )
    from boincvm.image.progress import to_standard_error
    from boincvm.machine.build_machine import booted, booted_with_files

    if arguments.if_missing:
        raise UsageError(
            "found --if-missing with --from-dockerfile",
            hint="only when it has been built is it known what a Dockerfile makes: leave it out",
        )
    if len(arguments.file) > 1:
        raise UsageError(
            f"found {len(arguments.file)} times --file, expected one Dockerfile",
            hint="other files are copied by the Dockerfile, from the directory",
        )
    asked = DockerfileBuild(
        directory=Path(arguments.from_dockerfile),
        file=Path(arguments.file[0]) if arguments.file else None,
        target=arguments.target or "",
        arguments=read_arguments(arguments.build_arg),
        base_images=parse_base_images(arguments.base_image),
        limit=DEFAULT_LIMIT if arguments.limit is None else arguments.limit,
        network=not arguments.no_network,
    )
    with terminable():
        return build_dockerfile(
            arguments.name,
            asked,
            mirror=arguments.mirror,
            architecture=arguments.architecture or AMD64.name,
            kernel=arguments.kernel or DEBIAN,
            boot=booted,
            boot_builder=booted_with_files,
            progress=to_standard_error(),
        )


def _limit(text: object) -> float:
    """Read how long a build may take."""
    from boincvm.durations import format_duration
    from boincvm.image.oci.dockerfile import LONGEST_LIMIT

    seconds = values.duration(text)
    if seconds > LONGEST_LIMIT:
        raise UnexpectedValueError(describe(text), f"at most {format_duration(LONGEST_LIMIT)}")
    return seconds


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
