"""`boincvm help`: prints the pages of the documentation."""

import argparse
from pathlib import Path

import boincvm
from boincvm.cli.output import print_json
from boincvm.cli.verbs import VERBS, prepare
from boincvm.errors import HostError, UsageError
from boincvm.similar_names import did_you_mean

_EPILOG = """\
Without a topic it lists them. A verb's name prints what boincvm VERB --help prints.

examples:
  boincvm help user-guide | less
  boincvm help exit-codes
  boincvm help run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("topic", nargs="?", metavar="TOPIC|VERB", help="what to print")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print a page or the list of them. Raises UsageError, HostError."""
    pages = {path.stem: path for path in pages_directory().glob("*.md")}
    topic: str | None = arguments.topic
    if topic is None:
        titles = {name: _title(pages[name]) for name in sorted(pages)}
        if arguments.json:
            print_json({"topics": titles})
            return 0
        width = max(map(len, titles))
        for name, title in titles.items():
            print(f"{name:{width}}  {title}")
        return 0
    name = topic.removesuffix(".md")
    if name in pages:
        text = pages[name].read_text()
        print_json({"topic": name, "text": text}) if arguments.json else print(text, end="")
        return 0
    if topic in VERBS:
        return prepare([topic, "--help"])()
    raise UsageError(
        f"found the unknown topic {topic!r}, expected a page of the documentation or a verb",
        hint=f"{did_you_mean(topic, [*pages, *VERBS])}boincvm help lists the pages",
    )


def pages_directory() -> Path:
    """Return the directory of the documentation. Raises HostError.

    In a wheel it lies within the package, in a checkout beside src.
    """
    package = Path(boincvm.__file__).parent
    for directory in (package / "_docs", package.parents[1] / "docs"):
        if (directory / "user-guide.md").is_file():
            return directory
    raise HostError(
        "the documentation is missing from this installation",
        hint="install boincvm again: pip install --force-reinstall boincvm",
    )


def _title(page: Path) -> str:
    """Return the first heading of a page."""
    lines = page.read_text().splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), "")
