"""Recipes that come with boincvm, to build as they are or to change."""

from pathlib import Path

from boincvm.errors import OutputFileError, UsageError, host_error
from boincvm.image.recipe import RECIPE
from boincvm.similar_names import did_you_mean

_DIRECTORY = Path(__file__).with_name("recipes")


def ready_recipes() -> dict[str, str]:
    """Return the summary of each recipe, the first sentence of its comment, by name."""
    found = {}
    for path in sorted(_DIRECTORY.glob("*.toml")):
        comment = []
        for line in path.read_text().splitlines():
            if not line.startswith("# "):
                break
            comment.append(line.removeprefix("# "))
        summary, _, _ = " ".join(comment).partition(". ")
        found[path.stem] = summary.rstrip(".")
    return found


def write_recipe(name: str, directory: Path) -> Path:
    """Write the recipe `name` into `directory`, made if it is missing; return the file's path.

    Raises UsageError for an unknown name, OutputFileError if there is a recipe already.
    """
    known = ready_recipes()
    if name not in known:
        raise UsageError(
            f"found the unknown recipe {name[:80]!r}, expected one of {', '.join(known)}",
            hint=f"{did_you_mean(name, known)}boincvm help images has a recipe's keys",
        )
    path = directory / RECIPE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write((_DIRECTORY / f"{name}.toml").read_text())
    except FileExistsError as error:
        raise OutputFileError(
            f"{str(path)!r} exists already",
            hint=f"write it elsewhere: boincvm image recipe {name} DIRECTORY",
        ) from error
    except OSError as error:
        raise host_error(f"{str(path)!r} cannot be written", error, OutputFileError) from error
    return path
