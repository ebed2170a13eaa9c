"""Destinations, patterns of destinations, and the subscriptions that match.

A destination is `/topic/` or `/queue/` followed by words with dots between them. In a pattern of
topics `*` stands for one word, and a final `**` for any number of words, including none.
"""

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

TOPIC, QUEUE = "/topic/", "/queue/"
ONE, REST = "*", "**"
MOST_LEVELS = 16
LONGEST = 255
_LEVEL = re.compile(r"[A-Za-z0-9_:@/=+-]+")


def is_destination(text: str) -> bool:
    """Return True if messages can be sent to `text`."""
    levels = _levels(text)
    return levels is not None and all(_LEVEL.fullmatch(level) for level in levels)


def is_pattern(text: str) -> bool:
    """Return True if `text` can be subscribed to: a destination, or a pattern of topics."""
    levels = _levels(text)
    if levels is None or text.startswith(QUEUE):
        return is_destination(text)
    if levels[-1] == REST:
        levels = levels[:-1]
    return all(level == ONE or _LEVEL.fullmatch(level) for level in levels)


def covers(allowed: str, wanted: str) -> bool:
    """Return True if everything that `wanted` can match is in `allowed`.

    `wanted` is a destination or a pattern.
    """
    have, want = _parts(allowed), _parts(wanted)
    for index, level in enumerate(have):
        if level == REST:
            return True
        if index == len(want) or want[index] == REST:
            return False
        if level not in (ONE, want[index]):
            return False
    return len(have) == len(want)


def _parts(text: str) -> list[str]:
    """Split into the kind and the words."""
    return [text[: len(TOPIC)], *text[len(TOPIC) :].split(".")]  # both kinds have the same length


def _levels(text: str) -> list[str] | None:
    kind = next((kind for kind in (TOPIC, QUEUE) if text.startswith(kind)), None)
    if kind is None or len(text) > LONGEST:
        return None
    levels = text.removeprefix(kind).split(".")
    return levels if len(levels) <= MOST_LEVELS else None


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
    """Subscribers by pattern.

    The cost of a match depends on the number of matches, not of subscribers. Patterns must satisfy
    `is_pattern`.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, subscriber: T) -> None:
        """Add a subscriber; calling it again is harmless."""
        node, levels = self._root, _parts(pattern)
        for level in levels[:-1] if levels[-1] == REST else levels:
            node = node.children.setdefault(level, _Node())
        (node.rests if levels[-1] == REST else node.ends)[subscriber] = None

    def remove(self, pattern: str, subscriber: T) -> None:
        """Remove a subscriber; calling it again is harmless."""
        levels, path = _parts(pattern), [self._root]
        for level in levels[:-1] if levels[-1] == REST else levels:
            node = path[-1].children.get(level)
            if node is None:
                return
            path.append(node)
        (path[-1].rests if levels[-1] == REST else path[-1].ends).pop(subscriber, None)
        for above, node, level in reversed(list(zip(path, path[1:], levels, strict=False))):
            if node.is_empty:
                del above.children[level]

    def match(self, destination: str) -> list[T]:
        """Return the subscribers whose patterns match `destination`.

        A subscriber is listed once for each of its patterns that match.
        """
        return list(_match(self._root, _parts(destination), 0))


def _match(node: _Node[T], levels: list[str], index: int) -> Iterator[T]:
    yield from node.rests
    if index == len(levels):
        yield from node.ends
        return
    for name in (levels[index], ONE):
        child = node.children.get(name)
        if child is not None:
            yield from _match(child, levels, index + 1)
