"""The rules of the house that no linter of ours checks."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("guest/**/*.py")])
LONGEST_FILE = 600
CONTRACTS = (
    "imports go downwards",
    "the controller stands on the machine engine, not on runner or wrapper",
    "a slot's files know nothing of tasks that run",
    "the guest's agent takes the codec and nothing else of ours",
    "a driver's package is the registry's alone",
    "drivers know nothing of each other",
)


def test_there_are_files():
    assert len(FILES) > 10


def test_imports_go_downwards():
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "guest")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for contract in CONTRACTS:
        assert f"{contract} KEPT" in " ".join(done.stdout.split())


def test_the_manual_has_every_exit_code():
    text = (ROOT / "docs/exit-codes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert [(int(code), name) for code, name, _, _ in rows] == [
        (code.value, code.name) for code in ExitCode
    ]
    assert all(meaning.strip() and advice.strip() for _, _, meaning, advice in rows)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def forbidden(tree: ast.AST) -> list[str]:
    """What the tree has that it may not have, each with its line."""
    found = []
    for node in ast.walk(tree):
        # A task that nobody holds is one whose error nobody sees; a TaskGroup holds its own.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            owner, name = called(node.value)
            if name in ("create_task", "ensure_future") and "group" not in owner.lower():
                found.append(f"{node.lineno}: a task that nobody holds")
        if not isinstance(node, ast.Call):
            continue
        owner, name = called(node)
        if owner == "" and name in ("eval", "exec"):
            found.append(f"{node.lineno}: {name}")
        if (owner, name) in (("time", "sleep"), ("", "sleep"), ("os", "system")):
            found.append(f"{node.lineno}: {owner}.{name}")
        for keyword in node.keywords:
            is_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "shell" and owner == "subprocess" and not is_false:
                found.append(f"{node.lineno}: a shell")
    return found


def called(call: ast.Call) -> tuple[str, str]:
    """(what stands before the last dot, the function's name)."""
    match call.func:
        case ast.Name(id=name):
            return "", name
        case ast.Attribute(value=owner, attr=name):
            return ast.unparse(owner), name
    return "", ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_forbidden(path):
    assert forbidden(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "asyncio.create_task(work())",
        "asyncio.get_running_loop().create_task(work())",
        "asyncio.ensure_future(work())",
        "create_task(work())",
        "eval(text)",
        "exec(text)",
        "time.sleep(1)",
        "sleep(1)",
        "os.system('x')",
        "subprocess.run('x', shell=True)",
        "subprocess.Popen('x', shell=flag)",
    ],
)
def test_the_forbidden_is_found(text):
    assert len(forbidden(ast.parse(f"def f():\n    {text}"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "self._task = asyncio.create_task(work())",
        "group.create_task(work())",
        "self._group.create_task(work())",
        "await asyncio.sleep(1)",
        "subprocess.run(['x'], shell=False)",
        "model.eval()",
        "shtab.complete(parser, shell='bash')",
    ],
)
def test_the_allowed_is_not(text):
    assert forbidden(ast.parse(f"async def f():\n    {text}")) == []


def test_one_place_writes_to_standard_error():
    """The other two are the stream that stands there under the client."""
    source = ROOT / "src/boincvm"
    found = [path for path in source.glob("**/*.py") if "sys.stderr" in path.read_text()]
    assert {str(path.relative_to(source)) for path in found} == {
        "standard_error.py", "redaction.py", "cli/boinc_wrapper.py",
    }  # fmt: skip
