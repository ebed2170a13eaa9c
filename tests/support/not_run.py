"""How tests are reported whose real part cannot be had: an archive that does not give a package."""

from typing import NoReturn

import pytest

NOT_RUN = "cannot be had here"


def not_run(part: str, reason: object) -> NoReturn:
    """Do not run the test that needs `part`; pytest names it at its end (tests/conftest.py)."""
    pytest.skip(f"{part} {NOT_RUN}: {reason}")
