"""Destinations and patterns of them, and which subscriptions a destination has.

A destination is `/topic/` or `/queue/` and words between dots. In a pattern of topics `*` stands
for one word, and `**` at the end for any number of words, none included.
"""

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

TOPIC, QUEUE = "/topic/", "/queue/"
ONE, REST = "*", "**"
MOST_WORDS = 16
LONGEST = 255
_WORD = re.compile(r"[A-Za-z0-9_:@/=+-]+")


def is_destination(text: str) -> bool:
    """Whether something can be sent there."""
    words = _words(text)
    return words is not None and all(_WORD.fullmatch(word) for word in words)


def is_pattern(text: str) -> bool:
    """Whether it can be subscribed to: a destination, or a pattern of topics."""
    words = _words(text)
    if words is None or text.startswith(QUEUE):
        return is_destination(text)
    if words[-1] == REST:
        words = words[:-1]
    return all(word == ONE or _WORD.fullmatch(word) for word in words)


def covers(allowed: str, wanted: str) -> bool:
    """Whether all that `wanted`, a destination or a pattern, can mean is in `allowed`."""
    have, want = _parts(allowed), _parts(wanted)
    for index, word in enumerate(have):
        if word == REST:
            return True
        if index == len(want) or want[index] == REST:
            return False
        if word not in (ONE, want[index]):
            return False
    return len(have) == len(want)


def _parts(text: str) -> list[str]:
    """The kind, and the words."""
    return [text[: len(TOPIC)], *text[len(TOPIC) :].split(".")]  # both kinds are as long


def _words(text: str) -> list[str] | None:
    kind = next((kind for kind in (TOPIC, QUEUE) if text.startswith(kind)), None)
    if kind is None or len(text) > LONGEST:
        return None
    words = text.removeprefix(kind).split(".")
    return words if len(words) <= MOST_WORDS else None


class _Node(Generic[T]):
    __slots__ = ("children", "ends", "rests")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.ends: dict[T, None] = {}
        self.rests: dict[T, None] = {}

    @property
    def is_empty(self) -> bool:
        return not (self.children or self.ends or self.rests)


class Subscriptions(Generic[T]):
    """Subscribers by pattern: what a match costs depends on the matches, not on how many there
    are. Patterns are what `is_pattern` takes."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, subscriber: T) -> None:
        """Again is harmless."""
        node, words = self._root, _parts(pattern)
        for word in words[:-1] if words[-1] == REST else words:
            node = node.children.setdefault(word, _Node())
        (node.rests if words[-1] == REST else node.ends)[subscriber] = None

    def remove(self, pattern: str, subscriber: T) -> None:
        """Again is harmless."""
        words, path = _parts(pattern), [self._root]
        for word in words[:-1] if words[-1] == REST else words:
            node = path[-1].children.get(word)
            if node is None:
                return
            path.append(node)
        (path[-1].rests if words[-1] == REST else path[-1].ends).pop(subscriber, None)
        for above, node, word in reversed(list(zip(path, path[1:], words, strict=False))):
            if node.is_empty:
                del above.children[word]

    def match(self, destination: str) -> list[T]:
        """Each subscriber of a pattern that `destination` fits; one with several patterns that
        fit comes several times."""
        return list(_match(self._root, _parts(destination), 0))


def _match(node: _Node[T], words: list[str], index: int) -> Iterator[T]:
    yield from node.rests
    if index == len(words):
        yield from node.ends
        return
    for name in (words[index], ONE):
        child = node.children.get(name)
        if child is not None:
            yield from _match(child, words, index + 1)
