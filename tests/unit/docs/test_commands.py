"""Commands in the documentation have only options that exist."""

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.cli import verbs
from boincvm.cli.main import main

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])
COMMAND = re.compile(r"\bboincvm((?: [^\s`|]+)+)")


@functools.cache
def help_of(*words: str) -> str:
    """Return what `boincvm WORDS --help` prints; empty if there is no such verb."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        return text.getvalue() if main([*words, "--help"]) == 0 else ""


def verb_of(words: list[str]) -> tuple[str, ...]:
    """Return the verb with the verbs below it, like `image kernel build`."""
    found = tuple(words[:1])
    for word in words[1:]:
        if not re.fullmatch("[a-z]+", word) or "VERB ...\n" not in help_of(*found):
            break
        found += (word,)
    return found


def unknown_options(text: str) -> Iterator[str]:
    for command in COMMAND.findall(text):
        words = command.split()
        if words[0] not in verbs.VERBS:
            continue
        verb = verb_of(words)
        for word in words[: words.index("--")] if "--" in words else words:
            option = re.match(r"\[?(--[a-z][a-z-]*)", word)
            if option and not re.search(rf"{option[1]}(?![a-z-])", help_of(*verb)):
                yield f"{' '.join(verb)} {option[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_exists(page: Path) -> None:
    assert list(unknown_options(page.read_text())) == []


def test_an_unknown_option_is_found() -> None:
    text = "`boincvm run --no-such -- prog --fine`, `boincvm image kernel build [--umk]`"
    assert list(unknown_options(text)) == ["run --no-such", "image kernel build --umk"]
