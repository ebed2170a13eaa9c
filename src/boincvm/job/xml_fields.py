"""Reads the single values of a job.xml; errors are `FILE:LINE: found X, expected Y`.

BOINC's own elements are read as BOINC's parser reads them: an invalid number or switch has no
effect. In elements that are ours or VMWrapper's it is an error.
"""

import re
from collections.abc import Iterable

from boincvm.errors import JobFileError
from boincvm.job.values import describe
from boincvm.lenient_xml import Element
from boincvm.portable_names import is_portable_part

MOST_IGNORED = 50
"""Most remarks to keep about what has no effect."""

_LONGEST_NUMBER = 100
_LONGEST_NAME = 4096
_LONGEST_MACHINE_NAME = 128
_LONGEST_PATTERN = 255
_INTEGER = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SEPARATOR = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")
_FILE_NAME = (
    "the name of a file in the slot: relative, without '..' and empty parts, and one that Windows"
    " can store, too"
)


class Source:
    """The file that is read: its name, and the parts that have no effect."""

    def __init__(self, name: str) -> None:
        self._name = name if name.isprintable() else repr(name)
        self.ignored: list[str] = []

    def fault(self, line: int, found: str, expected: str) -> JobFileError:
        return JobFileError(
            f"{self._name}:{line}: found {found}, expected {expected}",
            hint="boincvm help job-xml lists every element",
        )

    def ignore(self, line: int, what: str, expected: str) -> None:
        """Record that `what` has no effect."""
        if len(self.ignored) < MOST_IGNORED:
            self.ignored.append(f"{self._name}:{line}: {what} has no effect, expected {expected}")


class Fields:
    """The elements inside one element. If an element is repeated, the last valid one counts.

    The methods raise JobFileError. Elements that are not `known` have no effect, nor has text
    between elements.
    """

    def __init__(self, source: Source, element: Element, known: Iterable[str]) -> None:
        self.source = source
        self.line = element.line
        self._name = element.name
        self._children: dict[str, list[Element]] = {name: [] for name in known}
        if element.text:
            source.ignore(element.line, f"the text {describe(element.text)}", "elements")
        for child in element.children:
            if child.name in self._children:
                self._children[child.name].append(child)
            else:
                expected = f"an element that <{element.name}> may have"
                source.ignore(child.line, f"the element {describe(child.name)}", expected)

    def all(self, name: str) -> list[Element]:
        return self._children[name]

    def last(self, name: str) -> Element | None:
        found = self._children[name]
        return found[-1] if found else None

    def fault(self, element: Element, expected: str) -> JobFileError:
        """Return the error for an invalid value."""
        found = f"<{element.name}> {describe(element.text)}"
        return self.source.fault(element.line, found, expected)

    def text(self, name: str) -> str:
        """Return the text of the last such element, or ""."""
        element = self.last(name)
        return "" if element is None else self.text_of(element)

    def text_of(self, element: Element) -> str:
        if element.children:
            child = element.children[0]
            found = f"the element {describe(child.name)} in <{element.name}>"
            raise self.source.fault(child.line, found, "text (write < as &lt;)")
        return element.text

    def switch(self, name: str) -> bool | None:
        """Read a switch: `<name/>` and nonzero numbers are on, 0 is off; None if not given."""
        result: bool | None = None
        for element in self._children[name]:
            number = _integer(self.text_of(element))
            if element.is_closed_by_itself:
                result = True
            elif number is not None:
                result = number != 0
            else:
                self._has_no_effect(element, f"<{name}/>, 1 or 0")
        return result

    def strict_switch(self, name: str) -> bool | None:
        """Read a switch, but refuse anything invalid; for elements that are not BOINC's."""
        element = self.last(name)
        if element is None:
            return None
        if element.is_closed_by_itself:
            return True
        if self.text_of(element) not in ("0", "1"):
            raise self.fault(element, f"<{name}/>, 1 or 0")
        return element.text == "1"

    def real(self, name: str) -> float | None:
        """Read a number, perhaps infinite: 0 for `<name></name>`, None if it is not given."""
        result: float | None = None
        for element in self._children[name]:
            number = _real(self.text_of(element) or ("" if element.is_closed_by_itself else "0"))
            if number is not None:
                result = number
            else:
                self._has_no_effect(element, "a number")
        return result

    def strict_real(self, name: str, most: float) -> float | None:
        """Read a number above 0 and up to `most`; refuse anything else."""
        element = self.last(name)
        if element is None:
            return None
        number = _real(self.text_of(element))
        if number is None or not 0 < number <= most:
            raise self.fault(element, f"a number above 0 and up to {most:.0f}")
        return number

    def integer(self, name: str) -> int | None:
        """Read a whole number; None if it is not given or is invalid."""
        result: int | None = None
        for element in self._children[name]:
            number = _integer(self.text_of(element))
            if number is not None:
                result = number
            else:
                self._has_no_effect(element, "a whole number")
        return result

    def strict_integer(self, name: str, least: int, most: int) -> int | None:
        """Read a decimal whole number from `least` to `most`; refuse anything else."""
        element = self.last(name)
        if element is None:
            return None
        text = self.text_of(element)
        number = int(text) if re.fullmatch(r"[0-9]{1,15}", text) else -1
        if not least <= number <= most:
            raise self.fault(element, f"a whole number from {least} to {most}")
        return number

    def file_name(self, name: str) -> str | None:
        """Read the name of a file in the slot; None if it is missing or empty."""
        element = self.last(name)
        return None if element is None else self.file_name_of(element) or None

    def file_names(self, name: str) -> tuple[str, ...]:
        """Read the names in all such elements, except empty ones."""
        names = (self.file_name_of(element) for element in self._children[name])
        return tuple(filter(None, names))

    def file_name_of(self, element: Element) -> str:
        text = self.text_of(element)
        if text and not is_file_name(text):
            raise self.fault(element, _FILE_NAME)
        return text

    def machine_name(self, element: Element) -> str:
        """Read a virtual machine's name; it may become part of a path."""
        text = self.text_of(element)
        is_one_part = len(_SEPARATOR.split(text)) == 1 and text not in ("", ".", "..")
        if not is_one_part or not text.isprintable() or len(text) > _LONGEST_MACHINE_NAME:
            expected = f"a name of 1 to {_LONGEST_MACHINE_NAME} characters, none of them a slash"
            raise self.fault(element, expected)
        return text

    def pattern(self, element: Element) -> str:
        """Read an unambiguous regular expression."""
        # Few jobs have one, and every job would pay for the import.
        from boincvm.job.name_pattern import compile_name_pattern

        text = self.text_of(element)
        if len(text) > _LONGEST_PATTERN:
            raise self.fault(element, f"at most {_LONGEST_PATTERN} characters")
        try:
            compile_name_pattern(text)
        except ValueError as error:
            reason = describe(str(error))
            raise self.fault(element, f"a regular expression ({reason})") from error
        return text

    def _has_no_effect(self, element: Element, expected: str) -> None:
        self.source.ignore(element.line, f"<{element.name}> {describe(element.text)}", expected)


def is_file_name(text: str) -> bool:
    """Tell whether `text` is relative and stays in its directory, on Unix and on Windows."""
    parts = _SEPARATOR.split(text)
    is_plain = "" not in parts and ".." not in parts and parts[-1] != "."
    is_portable = all(part == "." or is_portable_part(part) for part in parts)
    return is_plain and is_portable and len(text) <= _LONGEST_NAME


def is_directory(text: str) -> bool:
    """Tell whether `text` is relative or begins with a macro, and has no `..`."""
    parts = _SEPARATOR.split(text)
    return bool(parts[0]) and ".." not in parts and not _DRIVE.match(text)


def _integer(text: str) -> int | None:
    """Convert all of `text` as C's strtol does with base 0; None if it is not a number."""
    match = _INTEGER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if match is None:
        return None
    sign, hexadecimal, octal, decimal = match.groups()
    number = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    return -number if sign == "-" else number


def _real(text: str) -> float | None:
    """Convert all of `text` as C's strtod does, but not hexadecimal numbers, infinity or NaN."""
    return float(text) if len(text) <= _LONGEST_NUMBER and _REAL.fullmatch(text) else None
