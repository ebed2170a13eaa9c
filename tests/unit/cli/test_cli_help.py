"""`boincvm help`, and hints that name pages or the name that was meant."""

import json
import re
from pathlib import Path

import pytest

from boincvm.cli.help import pages_directory
from boincvm.cli.main import main
from boincvm.errors import ImageMissingError, UsageError
from boincvm.hypervisor.registry import find_driver
from boincvm.image.store import ImageStore

ROOT = Path(__file__).parents[3]


def test_every_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    topics = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert topics == sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
    for topic in topics:
        assert main(["help", topic]) == 0
        assert capsys.readouterr().out == (ROOT / f"docs/{topic}.md").read_text()
    assert main(["help", "--json", "exit-codes"]) == 0
    assert json.loads(capsys.readouterr().out)["topic"] == "exit-codes"
    assert main(["help", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["topics"]) == set(topics)


def test_a_verb_and_an_unknown_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "map"]) == 0
    assert "usage: boincvm map" in capsys.readouterr().out
    assert main(["help", "exitcodes"]) == 210
    assert "did you mean exit-codes? boincvm help lists" in capsys.readouterr().err


def test_hints_name_pages_that_exist() -> None:
    pages = {path.stem for path in pages_directory().glob("*.md")}
    named = {
        name
        for path in (ROOT / "src").glob("**/*.py")
        for name in re.findall(r"boincvm help ([a-z][a-z-]+)", path.read_text())
    }
    assert len(named) > 5
    assert named - pages <= {"lists", "run"}


def test_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    for name in ("base", "numpy"):
        (tmp_path / "names" / name).write_text("x")
    store = ImageStore(tmp_path)
    for act in (store.digest_of, store.remove):
        with pytest.raises(ImageMissingError) as missing:
            act("nupmy")
        assert missing.value.hint == "did you mean numpy? boincvm image ls lists all"
    with pytest.raises(UsageError) as unknown:
        find_driver("virtualbx")
    assert unknown.value.hint.startswith("did you mean virtualbox? choose one of: qemu, ")
