"""`boincvm image`: build, list, inspect, pack, export, import, publish, fetch, remove images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli import (
    controller_options,
    image_delivery,
    image_disk,
    image_kernel,
    image_oci,
    image_recipe,
    image_seed,
    image_shrink,
    image_warm,
)
from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb
from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.image.build import Built

_EPILOG = """\
examples:
  boincvm image build                          the image `base`, which jobs use by default
  boincvm image build --package gmp-ecm sci    an image `sci` with a Debian package in it
  boincvm image build --pip numpy --file model.bin:/opt/ --package gcc --recommends lab
  boincvm image recipe sci                     a recipe, ./sci/image.toml, to read and to change
  boincvm image build ./sci                    the image of a recipe
  boincvm image build --from-oci app.tar app   the image of a container, from docker save
  boincvm image shrink --as ecm sci -- ecm --help    without what that does not touch
  boincvm image ls
  boincvm image pack sci sci-1.0.tar.xz        one file, to distribute
  boincvm image unpack sci-1.0.tar.xz sci      and back, on any computer
  boincvm image export sci sci.ova             a machine for VirtualBox
  boincvm image publish sci /srv/images        for any web server; signed
  boincvm image fetch https://example.org/images sci --key ed25519:...
  boincvm image update                         all fetched images, by the difference
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and options of `boincvm image`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    verbs = parser.add_subparsers(dest="image_verb", metavar="VERB", required=True)
    _add_build(verbs)
    image_recipe.add_arguments(verbs)
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
    from_machine = add_verb(
        verbs,
        "from-machine",
        "make an image of a machine's disk",
        "Make an image of the disk of a machine of the controller, which boincvm stop has shut\n"
        "down: with all that was installed and written there, and secrets too, even deleted\n"
        "ones.\n\n"
        "example:\n  boincvm stop web.1 && boincvm image from-machine web.1 web",
    )
    controller_options.completed(from_machine.add_argument("vm", metavar="MACHINE"))
    from_machine.add_argument("name", metavar="NAME", help="the image's name")
    from_machine.add_argument(
        "--force",
        action="store_true",
        help="replace an image NAME that exists; machines that have begun with it do not start"
        " any more",
    )
    controller_options.add_controller(from_machine)
    _add_pack_and_unpack(verbs)
    image_shrink.add_arguments(verbs)
    image_disk.add_arguments(verbs)
    image_seed.add_arguments(verbs)
    image_delivery.add_arguments(verbs)
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
        "Pack an image into one file, to distribute it: tar.xz, or tar.gz, which is larger, but\n"
        "packed in seconds. Equal images give equal files.\n\n"
        "With --since FILE is a patch: what makes the image of an earlier one, whose packed file\n"
        "everybody has, as volunteers have the files of a BOINC app version.\n\n"
        "examples:\n  boincvm image pack sci sci-1.0.tar.xz\n"
        "  boincvm image pack --since sci-1.0.tar.xz sci sci-1.1.patch",
    )
    pack.add_argument("name", metavar="NAME")
    pack.add_argument("file", metavar="FILE", help="ends with .tar.xz or .tar.gz; a patch, .patch")
    pack.add_argument(
        "--since",
        metavar="OLD",
        action="append",
        type=Path,
        default=[],
        help="the packed image that FILE follows; given again, each patch file between them",
    )
    pack.add_argument("--force", action="store_true", help="replace FILE if it exists")
    unpack = add_verb(
        verbs,
        "unpack",
        "unpack an image from such a file",
        "Unpack an image from a file that boincvm image pack has made. It replaces an image NAME\n"
        "that exists already.\n\n"
        "examples:\n  boincvm image unpack sci-1.0.tar.gz sci\n"
        "  boincvm image unpack --patch sci-1.1.patch sci-1.0.tar.gz sci",
    )
    unpack.add_argument("file", metavar="FILE")
    unpack.add_argument(
        "--patch",
        metavar="PATCH",
        action="append",
        type=Path,
        default=[],
        help="a patch file that follows FILE; repeatable, in their order",
    )
    unpack.add_argument(
        "name", metavar="NAME", nargs="?", help="default: FILE's name without .tar.xz or .tar.gz"
    )


def _add_build(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    build = add_verb(
        verbs,
        "build",
        "build an image from Debian packages, or from a recipe",
        "Build a base image from Debian packages. It needs no root. It takes about a minute,\n"
        "and several where packages have scripts, as gcc's have: these run in a machine, which\n"
        "is slow without KVM. Downloaded packages are kept, so the next build downloads only\n"
        "what is new.\n\n"
        "With a recipe in place of the name, that says what is in the image: a directory with a\n"
        "file image.toml, or such a file (boincvm help images).\n\n"
        "With --from-oci the image has a container's files: docker save, podman save and skopeo\n"
        "copy to oci-archive: write such an archive. With --from-dockerfile a machine builds the\n"
        "container first.\n\n"
        "examples:\n  boincvm image build --package gmp-ecm --package bc sci\n"
        "  boincvm image build ./sci\n"
        "  docker save -o app.tar app && boincvm image build --from-oci app.tar app\n"
        "  boincvm image build --from-dockerfile . app",
    )
    build.add_argument(
        "name",
        metavar="NAME|RECIPE",
        nargs="?",
        help="the image's name, or a recipe; default: the image base",
    )
    image_oci.add_arguments(build)
    build.add_argument(
        "--name",
        metavar="NAME",
        dest="image_name",
        help="with a recipe: the image's name, in place of the recipe's",
    )
    build.add_argument(
        "--update",
        action="store_true",
        help="with a recipe: use the newest packages, renew its lock file, and print what changed",
    )
    build.add_argument(
        "--package",
        metavar="P",
        action="append",
        default=[],
        help="a Debian package to install, with its dependencies; repeatable",
    )
    build.add_argument(
        "--recommends",
        action="store_true",
        help="also install what these packages recommend, like the C headers for gcc",
    )
    build.add_argument(
        "--pip",
        metavar="P",
        action="append",
        default=[],
        help="a package of PyPI for the image's Python, like numpy or numpy==2.1.3; repeatable",
    )
    build.add_argument(
        "--file",
        metavar="SRC:DST",
        action="append",
        default=[],
        help="a file or directory of this host, and its absolute path in the image; repeatable;"
        " with --from-dockerfile: the Dockerfile",
    )
    build.add_argument("--suite", metavar="S", help="Debian's suite; default: bookworm")
    build.add_argument(
        "--mirror", metavar="URL", help="the mirror to fetch packages from; default: Debian's own"
    )
    build.add_argument(
        "--architecture",
        choices=["amd64", "arm64"],
        help="the machines' architecture, by Debian's name for it; default: amd64",
    )
    build.add_argument(
        "--kernel",
        metavar="NAME",
        help="the image's kernel: small boots in about half the time, once boincvm image kernel"
        " build has made it; default: debian",
    )
    build.add_argument(
        "--if-missing",
        action="store_true",
        help="do nothing if such an image with this agent exists",
    )


_OF_OTHER_FILES = {
    "export": image_disk.export,
    "import": image_disk.import_,
    "kernel": image_kernel.run,
    "recipe": image_recipe.write,
    "seed": image_seed.run,
    "shrink": image_shrink.shrink,
    "warm": image_warm.warm,
    **image_delivery.VERBS,
}


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    verb: str = arguments.image_verb
    if verb == "build":
        return _build(arguments)
    if verb == "ls":
        return _list(as_json=arguments.json)
    if verb == "rm":
        return _remove(arguments.name, as_json=arguments.json)
    if verb == "from-machine":
        return _from_machine(arguments)
    if verb == "pack":
        return _pack(arguments)
    if verb == "unpack":
        return _unpack(arguments)
    if verb in _OF_OTHER_FILES:
        return _OF_OTHER_FILES[verb](arguments)
    return _inspect(arguments.name, as_json=arguments.json)


def _build(arguments: argparse.Namespace) -> int:
    from boincvm.image.recipe import recipe_path
    from boincvm.image.recommended import lacking_packages
    from boincvm.job.model import MachineShape
    from boincvm.sizes import format_size
    from boincvm.standard_error import write_line

    done = None
    if image_oci.is_asked_for(arguments):
        built = image_oci.build(arguments)
    else:
        arguments.name = arguments.name or MachineShape().image
        path = recipe_path(arguments.name)
        done = None if path is None else image_recipe.build(path, arguments)
        built = _build_of_options(arguments) if done is None else done.built
    if arguments.json:
        print_indented_json(
            {
                "name": built.name,
                "digest": built.digest,
                "fresh": built.fresh,
                "size": built.manifest.size,
                "packages": len(built.manifest.packages),
                "replaced": None if built.replaced is None else built.replaced.as_json(),
                **({} if done is None else image_recipe.as_json(done)),
            }
        )
    else:
        verb = "has been built" if built.fresh else "already exists"
        size = format_size(built.manifest.size)
        print(f"image {built.name} {verb}: {built.digest[:12]}, {size}")
        if built.replaced is not None:
            print(f"  {built.replaced}")
        if done is not None:
            image_recipe.print_lock(done)
        image_oci.print_command(built)
        lacking = lacking_packages(built.manifest.packages)
        if lacking:
            write_line(f"boincvm: the image has a compiler, but not its headers ({lacking[0]})")
            options = " ".join(f"--package {name}" for name in lacking)
            if done is not None:
                write_line(f"  add to the recipe's packages: {', '.join(lacking)}")
            else:
                write_line(f"  build it with {options}, or with --recommends")
    return 0


def _build_of_options(arguments: argparse.Namespace) -> "Built":
    from boincvm.image.architectures import AMD64
    from boincvm.image.build import build_image
    from boincvm.image.build_inputs import DEBIAN
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.image.recipe import SUITES
    from boincvm.machine.build_machine import booted

    for option, is_given in (("--name", arguments.image_name), ("--update", arguments.update)):
        if is_given:
            raise UsageError(
                f"found {option} without a recipe",
                hint="a recipe is a directory with a file image.toml, like ./sci; an image's name"
                " is given without --name",
            )
    with terminable():
        return build_image(
            arguments.name,
            tuple(arguments.package),
            suite=arguments.suite or SUITES[0],
            mirror=arguments.mirror,
            architecture=arguments.architecture or AMD64.name,
            kernel=arguments.kernel or DEBIAN,
            pip=tuple(arguments.pip),
            own_files=tuple(arguments.file),
            recommends=arguments.recommends,
            if_missing=arguments.if_missing,
            boot=booted,
            progress=to_standard_error(),
        )


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
        name = image.name if image.has_name else "-"
        if image.fault:
            print(f"{name:<20} {image.digest[:12]:<12} damaged: {image.fault}")
        else:
            size, use = format_size(image.size), " on demand" if image.is_partial else ""
            if not image.has_name:
                use += f" formerly {image.name}, in use by {', '.join(image.in_use_by)}"
            print(
                f"{name:<20} {image.digest[:12]:<12} {size:>10} {image.packages:>8} "
                f"{image.built:%Y-%m-%d %H:%M}{use}"
            )
    return 0


def _remove(name: str, *, as_json: bool) -> int:
    from boincvm.image.store import ImageStore
    from boincvm.machine.golden.maker import remove_goldens

    store = ImageStore()
    digest = store.digest_of(name, may_build=False)
    owners = store.remove(name)
    if not owners:
        remove_goldens(store, digest)
    if as_json:
        print_indented_json({"removed": name, "in_use_by": owners})
    else:
        print(f"image {name} has been removed")
        if owners:
            print(f"  its content is kept as long as it is in use by {', '.join(owners)}")
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


def _from_machine(arguments: argparse.Namespace) -> int:
    from boincvm.client.address import find_address
    from boincvm.standard_error import write_line

    client = controller_options.client_of(arguments)
    with controller_options.waiting(f"copying the disk of {arguments.vm}"):
        made = client.call(
            "image_from_machine", vm=arguments.vm, name=arguments.name, force=arguments.force
        )
    if arguments.json:
        print_indented_json(made)
    else:
        name = made["name"]
        print(f"image {name} has been made: {str(made['digest'])[:12]}")
        if find_address(arguments.controller).path is None:
            print(
                f"  it is on the controller's host; machines of it: boincvm create --image {name}"
            )
        else:
            print(f"  machines of it: boincvm run --image {name}, boincvm create --image {name}")
        write_line("boincvm: the image has all of the machine's disk: keys, logs, passwords, and")
        write_line(
            "  what can be restored of deleted files; give it to nobody who must not see them"
        )
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    from boincvm.image.delivery.patched_pack import pack_patch
    from boincvm.image.interruption import terminable
    from boincvm.image.pack import pack_image
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore
    from boincvm.sizes import format_size

    path, since = Path(arguments.file), arguments.since
    store, force, progress = ImageStore(), arguments.force, to_standard_error()
    base = None
    with terminable(), store.open(arguments.name) as image:
        if since:
            base = pack_patch(image, path, since, store, force=force, progress=progress)
        else:
            pack_image(image, path, force=force, progress=progress)
    size = path.stat().st_size
    if arguments.json:
        table = {"name": image.name, "digest": image.digest, "file": str(path), "size": size}
        print_indented_json(table if base is None else {**table, "base": base})
    else:
        follows = ""
        if since:
            follows = f"; it follows {since[-1]} ({format_size(since[0].stat().st_size)} packed)"
        print(f"image {image.name} has been packed: {path}, {format_size(size)}{follows}")
    return 0


def _unpack(arguments: argparse.Namespace) -> int:
    from boincvm.image.delivery.patched_pack import open_patched
    from boincvm.image.interruption import terminable
    from boincvm.image.pack import packed_name
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore

    path = Path(arguments.file)
    name = packed_name(path) if arguments.name is None else arguments.name
    progress = to_standard_error()
    with (
        terminable(),
        open_patched(path, arguments.patch, ImageStore(), name, progress=progress) as image,
    ):
        digest = image.digest
    if arguments.json:
        print_indented_json({"name": name, "digest": digest})
    else:
        print(f"image {name} has been unpacked: {digest[:12]}")
    return 0
