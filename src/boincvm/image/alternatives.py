"""Debian's alternatives (awk, libblas.so.3, editor…), which maintainer scripts would set up.

The scripts are read, not run: a plain `update-alternatives --install` with literal arguments is
understood, anything else is skipped. Of several providers the highest priority wins.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from boincvm.image.tree import Tree, clean_name

_CALL = re.compile(r"update-alternatives\s[^\n;&|]*--install[^\n;&|]*")
_LITERAL = re.compile(r"[A-Za-z0-9_./+:@%~=-]+")


@dataclass(frozen=True, slots=True)
class Alternative:
    """One program or library that a package offers as an alternative."""

    name: str
    priority: int
    links: tuple[tuple[str, str, str], ...]
    """Visible path, name in /etc/alternatives, and target of each link."""


def read_alternatives(script: str) -> Iterator[Alternative]:
    """Find the alternatives that a postinst script installs."""
    for call in _CALL.findall(script.replace("\\\n", " ")):
        try:
            words = shlex.split(call, comments=True)
        except ValueError:
            continue  # the pattern cut through quotes: not a plain call
        words = words[words.index("--install") + 1 :] if "--install" in words else []
        if len(words) < 4 or not words[3].isdigit():
            continue
        links = [(words[0], words[1], words[2])]
        rest = words[4:]
        while len(rest) >= 4 and rest[0] == "--slave":
            links.append((rest[1], rest[2], rest[3]))
            rest = rest[4:]
        if all(_LITERAL.fullmatch(word) for link in links for word in link):
            yield Alternative(words[1], int(words[3]), tuple(links))


def add_alternatives(tree: Tree, scripts: list[str]) -> None:
    """Make the links of all alternatives whose program or library is in the tree."""
    best: dict[str, Alternative] = {}
    for script in scripts:
        for alternative in read_alternatives(script):
            known = best.get(alternative.name)
            target = clean_name(alternative.links[0][2])
            if tree.exists(target) and (known is None or alternative.priority > known.priority):
                best[alternative.name] = alternative
    for alternative in best.values():
        for link, name, target in alternative.links:
            if "/" not in name and tree.exists(clean_name(target)):
                tree.add_link(f"etc/alternatives/{name}", target)
                tree.add_link(clean_name(link), f"/etc/alternatives/{name}")
