"""`boincvm image recipe` and `boincvm image build RECIPE`: images from files that describe them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb
from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.image.recipe_build import BuiltRecipe

_RECIPE = """\
Write a recipe that comes with boincvm, to build as it is or to change. Without a name list them.

example:
  boincvm image recipe sci && boincvm image build ./sci
"""
_IN_RECIPE = ("package", "recommends", "pip", "file", "suite", "architecture", "kernel")
"""Options of `image build` that a recipe takes the place of."""


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `boincvm image recipe`."""
    recipe = add_verb(verbs, "recipe", "write a ready recipe for an image", _RECIPE)
    recipe.add_argument("name", metavar="NAME", nargs="?", help="sci, data or opencl")
    recipe.add_argument(
        "directory", metavar="DIRECTORY", nargs="?", help="where to; default: a new one, NAME"
    )


def write(arguments: argparse.Namespace) -> int:
    """Write a recipe, or list them; return the exit code. Raises BoincvmError."""
    from boincvm.image.ready_recipes import ready_recipes, write_recipe

    if arguments.name is None:
        known = ready_recipes()
        if arguments.json:
            print_indented_json(known)
        else:
            width = max(map(len, known))
            print("\n".join(f"{name:{width}}  {summary}" for name, summary in known.items()))
        return 0
    directory = Path(arguments.directory or arguments.name)
    path = write_recipe(arguments.name, directory)
    if arguments.json:
        print_indented_json({"recipe": arguments.name, "file": str(path)})
    else:
        shown = directory if directory.is_absolute() else f"./{directory}"
        print(f"{path} has been written; build the image: boincvm image build {shown}")
    return 0


def build(path: Path, arguments: argparse.Namespace) -> "BuiltRecipe":
    """Build the image of a recipe. Raises BoincvmError."""
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.image.recipe_build import build_recipe
    from boincvm.machine.build_machine import booted

    for option in _IN_RECIPE:
        if getattr(arguments, option):
            raise UsageError(
                f"found --{option} with a recipe, expected it in the recipe",
                hint=f"{path} says what is in the image: boincvm help images",
            )
    if arguments.update and arguments.if_missing:
        raise UsageError(
            "found --update and --if-missing, expected one of them",
            hint="--update always builds; boincvm image build --help",
        )
    with terminable():
        return build_recipe(
            path,
            name=arguments.image_name,
            mirror=arguments.mirror,
            update=arguments.update,
            if_missing=arguments.if_missing,
            boot=booted,
            progress=to_standard_error(),
        )


def as_json(done: "BuiltRecipe") -> dict[str, object]:
    """Return what is printed of a recipe beside the image."""
    document: dict[str, object] = {"lock": str(done.lock)}
    if done.changes is not None:
        document["changes"] = done.changes._asdict()
    return document


def print_lock(done: "BuiltRecipe") -> None:
    """Print what became of the lock file."""
    if done.changes is not None:
        lines = done.changes.lines()
        print("\n".join([f"{done.lock} has been renewed:", *(lines or ["  nothing has changed"])]))
    elif done.built.lock is not None:
        print(f"{done.lock} has been written: later builds use exactly these packages")
