"""Rules of the code that the linters do not check."""

import ast
import functools
import graphlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

from boincvm.exit_codes import ExitCode
from boincvm.image import agent_files

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("guest/**/*.py")])
OTHERS = sorted(
    path
    for folder in ("tests", "benchmarks", "examples")
    for path in (ROOT / folder).glob("**/*.py")
)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
LONGEST_FILE = 600
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = {contract["name"]: contract for contract in LINTER["contracts"]}


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
    unbroken = re.findall(r"^(.+) KEPT$", done.stdout, re.MULTILINE)
    assert unbroken == list(CONTRACTS)


def test_no_two_modules_need_each_other():
    """This includes late imports, but not those for type checkers only."""
    graph = grimp.build_graph("boincvm", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def children(package: str) -> set[str]:
    """Return the modules and packages of a package, by their full names."""
    directory = ROOT / "src" / Path(*package.split("."))
    names = {path.parent.name for path in directory.glob("*/__init__.py")}
    names |= {path.stem for path in directory.glob("*.py") if path.stem != "__init__"}
    return {f"{package}.{name}" for name in names}


def layers(contract: str) -> list[set[str]]:
    """Return the modules of each layer, the highest first."""
    return [set(re.split(r" [:|] ", layer)) for layer in CONTRACTS[contract]["layers"]]


def test_no_module_escapes_the_layers():
    contract = CONTRACTS["imports go downwards"]
    assert (contract["containers"], contract["exhaustive"]) == (["boincvm"], True)


def test_no_module_of_the_controller_escapes_the_ends_of_the_bus():
    named = set().union(*layers("the two ends of the bus share its protocol and nothing else"))
    ours = children("boincvm.controller")
    assert named == {*ours, "boincvm.shim", "boincvm.node"}
    contract = CONTRACTS["of the controller only its machines know the shim"]
    assert set(contract["source_modules"]) == ours - {"boincvm.controller.machines"}


def test_no_module_escapes_the_rules_on_drivers():
    contract = CONTRACTS["a driver's package is the registry's alone"]
    ours = children("boincvm.hypervisor")
    drivers = {name for name in ours if f"{name}.package" in children(name)}
    names = layers("imports go downwards")
    above = set().union(*names[: names.index({"hypervisor"})])
    sources = {f"boincvm.{name}" for name in above} | ours - drivers
    assert set(contract["source_modules"]) == sources
    assert set(contract["forbidden_modules"]) == drivers
    assert set(CONTRACTS["drivers know nothing of each other"]["modules"]) == drivers


def test_no_module_escapes_the_rule_on_the_agent():
    contract = CONTRACTS["the guest's agent takes the codec and nothing else of ours"]
    allowed = {"boincvm.bus", "boincvm.host", "boincvm.tree_entries"}
    assert set(contract["forbidden_modules"]) == children("boincvm") - allowed


def test_the_agent_takes_nothing_that_is_not_in_its_image(tmp_path):
    for name, source in agent_files.agent_sources().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    modules = [
        name.removesuffix(".py").replace("/", ".")
        for name in agent_files.agent_sources()
        if name.startswith("boincvm_agent/") and not name.endswith("__main__.py")
    ]
    assert len(modules) > 5
    # -S: without the package that is installed here.
    subprocess.run(
        [sys.executable, "-S", "-c", f"import {', '.join(modules)}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
    )


def test_the_manual_has_every_exit_code():
    text = (ROOT / "docs/exit-codes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert [(int(code), name) for code, name, _, _ in rows] == [
        (code.value, code.name) for code in ExitCode
    ]
    assert all(meaning.strip() and advice.strip() for _, _, meaning, advice in rows)


# One test for all files: ten thousand tests that take no time take half a minute.


def faults(paths, check):
    """Return what `check` finds in each file, by the file's name, without those in order."""
    return {str(path.relative_to(ROOT)): found for path in paths if (found := check(path))}


class Faults(NamedTuple):
    """What a file of Python has that it must not have."""

    forbidden: list[str]
    old_names: list[str]
    old_external_names: list[str]


@functools.cache
def faults_of(path: Path) -> Faults:
    """Examine a file. The tree is not kept: so many would take the garbage collector long."""
    tree = ast.parse(path.read_text())
    names = old_names({path.stem, *names_in(tree)})
    return Faults(forbidden(tree), names, old_external_names(tree))


def test_files_stay_small():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def forbidden(tree: ast.AST) -> list[str]:
    """Return the forbidden constructs in the tree, each with its line."""
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
    """Return (what precedes the last dot, the function's name)."""
    match call.func:
        case ast.Name(id=name):
            return "", name
        case ast.Attribute(value=owner, attr=name):
            return ast.unparse(owner), name
    return "", ""


def test_nothing_forbidden():
    assert faults(FILES, lambda path: faults_of(path).forbidden) == {}


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
    """The other two are the stream that replaces it under the client."""
    source = ROOT / "src/boincvm"
    found = [path for path in source.glob("**/*.py") if "sys.stderr" in path.read_text()]
    assert {str(path.relative_to(source)) for path in found} == {
        "standard_error.py", "redaction.py", "cli/boinc_wrapper.py",
    }  # fmt: skip


# Names of a private language, which readers had to learn first. `NAME` stands for `_NAME` as well.
OLD_NAMES = frozenset(
    """
    asking attendance beginanew beginlife belongs buried bury busplace checkpointsteps clientends
    crowd desk far filerules filetraffic filetransfers firstword guestfiles guestplace headstart
    hear heard heeded hostroom is_asked is_wanted jobsteps judge keeper kept keptcommands
    keptmachine keptprograms letgo letgoon life look look_at looked machineopening near obey
    origins place qemubegun qemuorigin rhythm said say says settle settling surroundings taskguard
    taskplan tell told underclient unlike voice whence
    """.replace("_", "").split()
)


def names_in(tree: ast.AST) -> set[str]:
    """Return all names that the tree defines or assigns."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def old_names(names: set[str]) -> list[str]:
    return sorted(name for name in names if name.replace("_", "").lower() in OLD_NAMES)


def test_old_names_do_not_come_back():
    assert faults((*FILES, *OTHERS), lambda path: faults_of(path).old_names) == {}


def test_an_old_name_is_found():
    text = "class Keeper:\n    def tell(self, told):\n        self._kept = look = 1\n"
    assert old_names(names_in(ast.parse(text))) == ["Keeper", "_kept", "look", "tell", "told"]
    assert old_names(names_in(ast.parse("import operations as life"))) == ["life"]


# Such names in what others read: fields of messages, environment variables, names of files.
OLD_EXTERNAL_NAMES = frozenset(
    (
        "boincvm_voice", "boincvm-window", "guest_heard_again", "heard", "life", "voice", "window",
        "window.vmdk", "word",
    )
)  # fmt: skip
OLD_IN_TEXT = re.compile(
    r"BOINCVM_VOICE|boincvm-window|guest_heard_again|`(heard|life|voice|window|word)`"
)
NOT_PYTHON = sorted(
    path
    for path in (ROOT / "guest").glob("**/*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
)
FORMER_NAMES = ROOT / "docs/changes.md"


def old_external_names(tree: ast.AST) -> list[str]:
    """Return the old names among the tree's literals; of a path, the last part counts."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)):
                found.add(text)
            case ast.Constant(value=bytes(data)):
                found.add(data.decode("latin-1"))
    return sorted(text for text in found if text.rpartition("/")[2].lower() in OLD_EXTERNAL_NAMES)


def test_old_names_do_not_come_back_in_messages_and_files():
    assert faults(FILES, lambda path: faults_of(path).old_external_names) == {}


def test_old_names_do_not_come_back_in_text():
    assert len(NOT_PYTHON) > 20
    paths = {*NOT_PYTHON, *PAGES, *OTHERS} - {FORMER_NAMES, Path(__file__)}
    assert faults(paths, lambda path: OLD_IN_TEXT.findall(path.read_text())) == {}


def test_an_old_name_in_a_message_is_found():
    text = "headers = {'word': kind}\nNAME = b'BOINCVM_VOICE'\npath = f'{directory}/voice'\n"
    assert old_external_names(ast.parse(text)) == ["/voice", "BOINCVM_VOICE", "word"]
    assert OLD_IN_TEXT.search('getenv("BOINCVM_VOICE")')
    assert OLD_IN_TEXT.search("the header `voice`")


# Phrases that a native engineer does not use, or has to read twice.
ODD_PHRASES = re.compile(
    r"(?:\b|_)(whoever|whomever|beg[ia]ns? anew|a thing of|(?:is|are) told as|by its own word)"
    r"(?:\b|_)",
    re.IGNORECASE,
)


def odd_lines(page: Path) -> list[str]:
    """Return the lines with odd phrases, with their numbers."""
    lines = page.read_text().splitlines()
    return [f"{number}: {line}" for number, line in enumerate(lines, 1) if ODD_PHRASES.search(line)]


def test_pages_and_docstrings_are_plain_english():
    assert faults({*PAGES, *FILES, *OTHERS} - {Path(__file__)}, odd_lines) == {}


def test_an_odd_phrase_is_found():
    assert ODD_PHRASES.search("Whoever asks begins anew")
    assert ODD_PHRASES.search("def test_whoever_asks")
