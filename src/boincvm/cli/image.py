"""`boincvm image`: build, list, inspect, pack, unpack and remove base images."""

import argparse

from boincvm.cli import image_kernel, image_warm
from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb

_EPILOG = """\
examples:
  boincvm image build                          the image `base`, which jobs use by default
  boincvm image build --package gmp-ecm sci    an image `sci` with a Debian package in it
  boincvm image ls
  boincvm image pack sci sci-1.0.tar.gz        one file, to be shipped
  boincvm image unpack sci-1.0.tar.gz sci      and back, on any computer
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and options of `boincvm image`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    verbs = parser.add_subparsers(dest="image_verb", metavar="VERB", required=True)
    _add_build(verbs)
    add_verb(
        verbs,
        "ls",
        "list the images",
        "List the images of this user.\n\nexample:\n  boincvm image ls",
    )
    remove = add_verb(
        verbs,
        "rm",
        "remove an image",
        "Remove an image, unless a machine that runs uses it.\n\nexample:\n  boincvm image rm sci",
    )
    remove.add_argument("name", metavar="NAME")
    inspect = add_verb(
        verbs,
        "inspect",
        "show what an image is made of",
        "Show an image's files, digests and packages.\n\n"
        "example:\n  boincvm image inspect --json base",
    )
    inspect.add_argument("name", metavar="NAME")
    _add_pack_and_unpack(verbs)
    image_kernel.add_arguments(
        verbs.add_parser(
            "kernel",
            help="build, list and remove small kernels for machines",
            description="Small kernels of our own, which boot machines sooner than Debian's.",
        )
    )
    image_warm.add_arguments(
        add_verb(
            verbs,
            "warm",
            "save a booted machine of an image, to start others from",
            "Boot a machine of an image and keep it as a snapshot from which others start.\n"
            "boincvm run has one made in the background after a machine of a new shape has run.\n\n"
            "example:\n  boincvm image warm sci --memory 1G",
        )
    )


def _add_pack_and_unpack(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pack = add_verb(
        verbs,
        "pack",
        "pack an image into one file",
        "Put an image into one file, to ship it: a tar.gz. Equal images give equal files.\n\n"
        "example:\n  boincvm image pack sci sci-1.0.tar.gz",
    )
    pack.add_argument("name", metavar="NAME")
    pack.add_argument("file", metavar="FILE")
    pack.add_argument("--force", action="store_true", help="replace FILE if it exists")
    unpack = add_verb(
        verbs,
        "unpack",
        "unpack an image from such a file",
        "Take an image out of a file that boincvm image pack made. If there is an image NAME\n"
        "already, the new one has the name.\n\n"
        "example:\n  boincvm image unpack sci-1.0.tar.gz sci",
    )
    unpack.add_argument("file", metavar="FILE")
    unpack.add_argument(
        "name", metavar="NAME", nargs="?", help="default: FILE's name without .tar.gz"
    )


def _add_build(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    build = add_verb(
        verbs,
        "build",
        "build an image from Debian packages",
        "Build a base image from Debian packages. It needs no root and takes about 15 seconds;\n"
        "downloaded packages are kept, so the next build downloads only what is new.\n\n"
        "example:\n  boincvm image build --package gmp-ecm --package bc sci",
    )
    build.add_argument("name", metavar="NAME", nargs="?", default="base", help="default: base")
    build.add_argument(
        "--package",
        metavar="P",
        action="append",
        default=[],
        help="a Debian package to install, with its dependencies; repeatable",
    )
    build.add_argument(
        "--suite", metavar="S", default="bookworm", help="Debian's suite; default: bookworm"
    )
    build.add_argument(
        "--mirror", metavar="URL", help="where packages come from; default: Debian's own mirror"
    )
    build.add_argument(
        "--architecture",
        choices=["amd64", "arm64"],
        default="amd64",
        help="the machines' processor, by Debian's name of it; default: amd64",
    )
    build.add_argument(
        "--kernel",
        metavar="NAME",
        default="debian",
        help="the image's kernel: small boots in less than half the time, once boincvm image kernel"
        " build has made it; default: debian",
    )
    build.add_argument(
        "--if-missing",
        action="store_true",
        help="do nothing if such an image with this agent exists",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    verb: str = arguments.image_verb
    if verb == "build":
        return _build(arguments)
    if verb == "ls":
        return _list(as_json=arguments.json)
    if verb == "rm":
        return _remove(arguments.name, as_json=arguments.json)
    if verb == "pack":
        return _pack(arguments)
    if verb == "unpack":
        return _unpack(arguments)
    if verb == "warm":
        return image_warm.warm(arguments)
    if verb == "kernel":
        return image_kernel.run(arguments)
    return _inspect(arguments.name, as_json=arguments.json)


def _build(arguments: argparse.Namespace) -> int:
    from boincvm.image.build import build_image
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.machine.build_machine import booted
    from boincvm.sizes import format_size

    with terminable():
        built = build_image(
            arguments.name,
            tuple(arguments.package),
            suite=arguments.suite,
            mirror=arguments.mirror,
            architecture=arguments.architecture,
            kernel=arguments.kernel,
            if_missing=arguments.if_missing,
            boot=booted,
            progress=to_standard_error(),
        )
    if arguments.json:
        print_indented_json(
            {
                "name": built.name,
                "digest": built.digest,
                "fresh": built.fresh,
                "size": built.manifest.size,
                "packages": len(built.manifest.packages),
            }
        )
    else:
        verb = "is built" if built.fresh else "already exists"
        size = format_size(built.manifest.size)
        print(f"image {built.name} {verb}: {built.digest[:12]}, {size}")
    return 0


def _list(*, as_json: bool) -> int:
    from boincvm.image.listing import list_images
    from boincvm.sizes import format_size

    images = list_images()
    if as_json:
        print_indented_json([image.as_json() for image in images])
        return 0
    if not images:
        print("there are no images yet; build one: boincvm image build")
        return 0
    print(f"{'NAME':<20} {'DIGEST':<12} {'SIZE':>10} {'PACKAGES':>8} BUILT")
    for image in images:
        if image.fault:
            print(f"{image.name:<20} {image.digest[:12]:<12} damaged: {image.fault}")
        else:
            size = format_size(image.size)
            print(
                f"{image.name:<20} {image.digest[:12]:<12} {size:>10} {image.packages:>8} "
                f"{image.built:%Y-%m-%d %H:%M}"
            )
    return 0


def _remove(name: str, *, as_json: bool) -> int:
    from boincvm.image.store import ImageStore
    from boincvm.machine.golden.maker import remove_goldens

    store = ImageStore()
    digest = store.digest_of(name)
    store.remove(name)
    remove_goldens(store, digest)
    if as_json:
        print_indented_json({"removed": name})
    else:
        print(f"image {name} has been removed")
    return 0


def _inspect(name: str, *, as_json: bool) -> int:
    from dataclasses import asdict

    from boincvm.image.listing import describe
    from boincvm.image.store import ImageStore

    with ImageStore().open(name) as image:
        if as_json:
            print_indented_json(
                {
                    "name": name,
                    "digest": image.digest,
                    "directory": str(image.directory),
                    **asdict(image.manifest),
                }
            )
        else:
            print(describe(image))
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from boincvm.image.interruption import terminable
    from boincvm.image.pack import pack_image
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore
    from boincvm.sizes import format_size

    path = Path(arguments.file)
    with terminable(), ImageStore().open(arguments.name) as image:
        pack_image(image, path, force=arguments.force, progress=to_standard_error())
    size = path.stat().st_size
    if arguments.json:
        print_indented_json(
            {"name": image.name, "digest": image.digest, "file": str(path), "size": size}
        )
    else:
        print(f"image {image.name} has been packed: {path}, {format_size(size)}")
    return 0


def _unpack(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from boincvm.image.interruption import terminable
    from boincvm.image.pack import packed_name, unpack_image
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore

    path = Path(arguments.file)
    name = packed_name(path) if arguments.name is None else arguments.name
    with terminable():
        digest = unpack_image(path, name, ImageStore(), progress=to_standard_error())
    if arguments.json:
        print_indented_json({"name": name, "digest": digest})
    else:
        print(f"image {name} has been unpacked: {digest[:12]}")
    return 0
