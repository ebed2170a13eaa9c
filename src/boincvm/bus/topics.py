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
MOST_WORDS = 16
LONGEST = 255
_WORD = re.compile(r"[A-Za-z0-9_:@/=+-]+")


def is_destination(text: str) -> bool:
    """Return True if messages can be sent to `text`."""
    words = _words(text)
    return words is not None and all(_WORD.fullmatch(word) for word in words)


def is_pattern(text: str) -> bool:
    """Return True if `text` can be subscribed to: a destination, or a pattern of topics."""
    words = _words(text)
    if words is None or text.startswith(QUEUE):
        return is_destination(text)
    if words[-1] == REST:
        words = words[:-1]
    return all(word == ONE or _WORD.fullmatch(word) for word in words)


def covers(allowed: str, wanted: str) -> bool:
    """Return True if everything that `wanted` can match is in `allowed`.

    `wanted` is a destination or a pattern.
    """
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
    """Split into the kind and the words."""
    return [text[: len(TOPIC)], *text[len(TOPIC) :].split(".")]  # both kinds have the same length


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
    """Subscribers by pattern.

    The cost of a match depends on the number of matches, not of subscribers. Patterns must satisfy
    `is_pattern`.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, subscriber: T) -> None:
        """Add a subscriber; calling it again is harmless."""
        node, words = self._root, _parts(pattern)
        for word in words[:-1] if words[-1] == REST else words:
            node = node.children.setdefault(word, _Node())
        (node.rests if words[-1] == REST else node.ends)[subscriber] = None

    def remove(self, pattern: str, subscriber: T) -> None:
        """Remove a subscriber; calling it again is harmless."""
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
        """Return the subscribers whose patterns match `destination`.

        A subscriber is listed once for each of its patterns that match.
        """
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
