"""`boincvm image kernel`: build, list and remove guest kernels of our own."""

import argparse

from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb

_BUILD = """\
Build a small kernel from Debian's newest kernel sources. It needs no root, but a compiler, 3 GiB
of disk while it works, and 5 to 8 minutes of processor time.

`small` is for virtual machines: boincvm image build --kernel small puts it into an image.
`uml` (--uml) is User-mode Linux, a program: --driver uml uses it once it is here.

example:
  boincvm image kernel build && boincvm image build --kernel small quick
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and options of `boincvm image kernel`."""
    verbs = parser.add_subparsers(dest="kernel_verb", metavar="VERB", required=True)
    build = add_verb(verbs, "build", "build a kernel", _BUILD)
    build.add_argument("--uml", action="store_true", help="build User-mode Linux")
    build.add_argument(
        "--architecture",
        choices=["x86_64"],
        default="x86_64",
        help="the machines' processor; default: x86_64",
    )
    build.add_argument(
        "--suite",
        metavar="S",
        help="Debian's suite whose sources are taken; see boincvm help images",
    )
    build.add_argument(
        "--mirror",
        metavar="URL",
        help="the mirror to fetch packages from; default: the one that this host's apt uses",
    )
    build.add_argument(
        "--if-missing",
        action="store_true",
        help="do nothing if there is one, even of older sources",
    )
    add_verb(verbs, "ls", "list the kernels", "List the kernels that were built here.")
    remove = add_verb(
        verbs,
        "rm",
        "remove a kernel",
        "Remove a kernel. Images that were built with it keep their copy.",
    )
    remove.add_argument("name", metavar="NAME")


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    verb: str = arguments.kernel_verb
    if verb == "build":
        return _build(arguments)
    if verb == "ls":
        return _list(as_json=arguments.json)
    return _remove(arguments.name, as_json=arguments.json)


def _build(arguments: argparse.Namespace) -> int:
    from boincvm.image.interruption import terminable
    from boincvm.image.kernels.build import build_kernel
    from boincvm.image.kernels.source import SUITE
    from boincvm.image.kernels.store import SMALL, UML
    from boincvm.image.progress import to_standard_error
    from boincvm.sizes import format_size

    with terminable():
        built = build_kernel(
            UML if arguments.uml else SMALL,
            suite=arguments.suite or SUITE,
            mirror=arguments.mirror,
            if_missing=arguments.if_missing,
            progress=to_standard_error(),
        )
    kernel = built.kernel
    if arguments.json:
        print_indented_json({"fresh": built.fresh, **kernel.as_json()})
    else:
        verb = "has been built" if built.fresh else "already exists"
        size = format_size(kernel.size)
        print(f"kernel {kernel.name} {verb}: Linux {kernel.release}, {kernel.sha256[:12]}, {size}")
    return 0


def _list(*, as_json: bool) -> int:
    from boincvm.image.kernels.store import list_kernels
    from boincvm.sizes import format_size

    kernels = list_kernels()
    if as_json:
        print_indented_json([kernel.as_json() for kernel in kernels])
        return 0
    if not kernels:
        print("no kernel was built here; build one: boincvm image kernel build")
        return 0
    print(f"{'NAME':<8} {'RELEASE':<12} {'DIGEST':<12} {'SIZE':>10} BUILT")
    for kernel in kernels:
        print(
            f"{kernel.name:<8} {kernel.release:<12} {kernel.sha256[:12]:<12} "
            f"{format_size(kernel.size):>10} {kernel.built:%Y-%m-%d %H:%M}"
        )
    return 0


def _remove(name: str, *, as_json: bool) -> int:
    from boincvm.image.kernels.store import remove

    remove(name)
    if as_json:
        print_indented_json({"removed": name})
    else:
        print(f"kernel {name} has been removed")
    return 0
