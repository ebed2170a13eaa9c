"""The controller's manual agrees with the code: operations, names, states, limits, tests."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from boincvm.controller import controller as controller_module
from boincvm.controller.operations import OPERATIONS
from boincvm.controller.protocol.messages import FromGuest, ToGuest
from boincvm.controller.protocol.vm_state import VmState
from boincvm.controller.serve import bodies
from boincvm.controller.serve.xml_rpc_methods import STATES, Methods

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "SPECIFICATION.md"])
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "s": 1, "ms": 1, "": 1}


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table beneath that heading, without the table's header."""
    text = (DOCS / page).read_text()
    assert f"\n{heading}\n" in text, heading
    lines = text.split(f"\n{heading}\n", 1)[1].split("\n## ")[0].splitlines()
    table: list[str] = []
    for line in lines:
        if line.startswith("|"):
            table.append(line)
        elif table:
            break
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table[2:]
    ]


def test_each_operation_with_its_parameters() -> None:
    expected = []
    for operation in OPERATIONS.values():
        for one in operation.parameters:
            default = "nothing" if one.default is None else f"`{json.dumps(one.default)}`"
            expected.append(
                [
                    f"`{operation.name}`",
                    f"`{one.name}`",
                    one.kind.value,
                    "needed" if one.is_required else default,
                    one.help,
                ]
            )
    assert rows("controller-api.md", "### Parameters") == expected


def test_each_operation_with_its_result() -> None:
    found = rows("controller-api.md", "## Operations")
    assert [(name, summary) for name, summary, _, _ in found] == [
        (f"`{operation.name}`", operation.summary) for operation in OPERATIONS.values()
    ]
    assert [change == "yes" for _, _, change, _ in found] == [
        operation.changes for operation in OPERATIONS.values()
    ]
    assert all(result for *_, result in found)


class Nobody:
    """Stands for a controller."""


def test_each_original_name() -> None:
    methods = Methods(Nobody(), None)._table()  # type: ignore[arg-type]
    found = rows("controller-api.md", "### Original names")
    calls = [re.fullmatch(r"`([\w.]+)\((.*)\)`", call) for call, *_ in found]
    assert all(calls)
    reported = {
        one[1]: [word.strip() for word in one[2].split(",") if word] for one in calls if one
    }
    assert reported == {
        name: [str(one.replace(annotation=one.empty)) for one in signature.parameters.values()]
        for name, signature in ((name, inspect.signature(one)) for name, one in methods.items())
    }
    named = {word for _, operation, _ in found for word in re.findall(r"`(\w+)`", operation)}
    assert named <= set(OPERATIONS), "operations that there are not"


def test_each_state() -> None:
    found = rows("controller.md", "### States")
    assert [(state, old) for state, old, _ in found] == [
        (f"`{state}`", STATES[state]) for state in VmState
    ]


def test_each_kind_of_event() -> None:
    kinds = {kind for kind, _ in controller_module._CHANGES.values()}
    kinds |= {kind for kind, _ in controller_module._HOST_CHANGES.values()}
    for path in (ROOT / "src/boincvm/controller").rglob("*.py"):
        kinds |= set(re.findall(r"events\.add\(\s*\"(\w+)\"", path.read_text()))
    found = rows("controller-api.md", "### Kinds of events")
    assert {word for kind, _, _ in found for word in re.findall(r"`(\w+)`", kind)} == kinds


def test_each_status_of_an_error() -> None:
    found = rows("controller-api.md", "### Errors")
    reported = {
        name: int(status) for status, names in found for name in re.findall(r"`(\w+)`", names)
    }
    assert reported == {kind.__name__: status for kind, status in bodies._STATUS}


@pytest.mark.parametrize(
    "row", rows("controller.md", "## Limits"), ids=lambda row: row[2].strip("`")
)
def test_limits_are_those_of_the_code(row: list[str]) -> None:
    _, most, where = row
    module, _, name = where.strip("`").rpartition(".")
    holder: object
    if module.endswith("BrokerLimits"):
        holder = importlib.import_module("boincvm.bus.broker").BrokerLimits()
    else:
        holder = importlib.import_module(f"boincvm.{module}")
    number, _, unit = most.partition(" ")
    assert float(number.replace(",", "")) * UNITS[unit] == getattr(holder, name)


def test_the_threat_model_names_tests_and_code_that_exist() -> None:
    text = (DOCS / "threat-model.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 60
    for path, name in named:
        functions = {
            getattr(node, "name", "") for node in ast.walk(ast.parse((ROOT / path).read_text()))
        }
        assert name in functions, f"{path}::{name}"
    for path in re.findall(r"`([\w/]+\.(?:py|js|html))`", text):
        assert (ROOT / "src/boincvm" / path).exists(), path


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def test_each_message() -> None:
    reported = [(name, sender) for name, sender, _ in rows("controller.md", "### Messages")]
    sent = [(f"`{kind.NAME}`", "guest") for kind in get_args(FromGuest)]
    assert reported == sent + [(f"`{kind.NAME}`", "controller") for kind in get_args(ToGuest)]
