"""Single values: the limits themselves, and messages that stay short and on one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.image.names import check_image_name
from boincvm.job import values
from boincvm.job.model import MIB
from boincvm.job.values import UnexpectedValueError

ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=4,
)
ALL = [
    values.any_text,
    values.filled_text,
    values.flag,
    values.memory,
    values.disk,
    values.cpus,
    values.duration,
    values.image_name,
    values.command,
    values.environment_name,
    values.port_forward,
]


@pytest.mark.parametrize("convert", ALL, ids=lambda convert: convert.__name__)
def test_anything_is_converted_or_described_in_one_line(convert):
    @given(ANYTHING)
    def check(value):
        try:
            convert(value)
            message = ""
        except UnexpectedValueError as error:
            message = f"found {error.found}, expected {error.expected}"
        assert len(message.splitlines()) <= 1
        assert len(message) < 300

    check()


@pytest.mark.parametrize(
    ("convert", "least", "most"),
    [
        (values.memory, 64 * MIB, 1 << 40),
        (values.disk, 64 * MIB, 1 << 44),
    ],
)
def test_bounds_of_sizes(convert, least, most):
    assert convert(str(least)) == least
    assert convert(str(most)) == most
    for outside in (least - 1, most + 1):
        with pytest.raises(UnexpectedValueError):
            convert(str(outside))


def test_bounds_of_the_rest():
    assert values.cpus(256) == 256
    assert values.duration(3650 * 86400) == values.duration("3650d") == values.LONGEST_DURATION
    for outside in ("3651d", 3651 * 86400, -1, -0.0, "0", 10**400):
        with pytest.raises(UnexpectedValueError):
            values.duration(outside)


@pytest.mark.parametrize(
    "ports", ["80", "80:", ":80", "0:80", "80:65536", "-1:80", "٨:80", "1:2:3"]
)
def test_ports_that_are_none(ports):
    assert values.port_forward("65535:1") == (65535, 1)
    with pytest.raises(UnexpectedValueError, match="a port of the host and one of the guest"):
        values.port_forward(ports)


def test_a_long_text_is_shortened():
    assert len(values.describe("x" * 10_000)) < 80


@given(st.text(alphabet="aA0._-/ ", max_size=70))
def test_image_names_are_those_of_the_store(name):
    def accepts(check):
        try:
            return check(name) == name
        except Exception:
            return False

    assert accepts(values.image_name) == accepts(check_image_name)
