"""Regular expressions for names of files, as BOINC's wrapper has them in `<zip_output>`.

It matches by std::regex (ECMAScript), which knows character classes that Python does not.
"""

import re
import warnings

_CLASSES = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:upper:]": "A-Z",
    "[:xdigit:]": "0-9A-Fa-f",
}


def compile_name_pattern(text: str) -> re.Pattern[str]:
    """Raises ValueError for what is no regular expression, or may be meant otherwise."""
    translated = text
    for name, characters in _CLASSES.items():
        translated = translated.replace(name, characters)
    try:
        # What Python only warns of, like `[[a]`, means another thing in C++.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(translated)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(str(error)) from error
