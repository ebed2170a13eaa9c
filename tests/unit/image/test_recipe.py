"""image.toml: what it may say, and where each error is."""

import os
import re
from pathlib import Path

import pytest

from boincvm.errors import JobFileError, OutputFileError, UsageError
from boincvm.image import recipe
from boincvm.image.ready_recipes import ready_recipes, write_recipe
from boincvm.image.recipe import ImageRecipe, read_recipe, recipe_path

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a recipe's directory, beside which there is a secret."""
    (tmp_path / "secret").write_text("secret")
    made = tmp_path / "own"
    (made / "tables").mkdir(parents=True)
    (made / "tables/one").write_text("1")
    (made / "setup.sh").write_text("echo done\n")
    return made


def read(directory: Path, text: str) -> ImageRecipe:
    (directory / "image.toml").write_text(text)
    return read_recipe(directory / "image.toml")


def test_an_empty_recipe_is_that_of_the_base_image(directory: Path) -> None:
    found = read(directory, "")
    assert found.asked == ("bookworm", "amd64", "debian", (), False, ())
    assert (found.name, found.memory, found.files) == (None, 0, ())
    assert (found.script, found.check) == (None, None)
    assert found.lock == directory / "image.lock"


def test_the_documented_example(directory: Path) -> None:
    text = (DOCS / "images.md").read_text().partition("## Make an image")[2]
    found = read(directory, text.partition("```toml\n")[2].partition("```")[0])
    assert found.name == "sci"
    assert found.asked.packages == ("gmp-ecm", "libopenblas0")
    assert found.asked.pip == ("numpy==2.1.3",)
    assert [str(file.destination) for file in found.files] == ["/opt/tables"]
    assert found.script == (b"echo done\n", 1200.0, 2 << 30)
    assert found.check == (("ecm", "--help"), 60.0)
    assert found.memory == 1 << 30


def test_the_least_that_may_be_asked_for(directory: Path) -> None:
    text = "memory = '64M'\n[script]\ntext = 'a'\ndisk = '1M'\nlimit = 1"
    found = read(directory, text)
    assert found.memory == 64 << 20
    assert found.script == (b"a", 1.0, 1 << 20)


def test_the_reference_lists_what_is_read() -> None:
    """Each table of the page has a row for each key, and for nothing else."""
    page = (DOCS / "images.md").read_text().partition("## Make an image")[2]
    page = page.partition("\n## ")[0]
    for table, keys in recipe.KEYS.items():
        heading = f"`{table}`" if table else "The recipe itself"
        section = page.partition(f"\n### {heading}")[2].partition("\n###")[0]
        listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert sorted(listed) == sorted(keys), table


def test_the_reference_tells_the_limits() -> None:
    page = (DOCS / "images.md").read_text().partition("## Make an image")[2]
    for text in ("64 KiB", "6 hours", "64 MiB to 64 GiB", "1 MiB to 6 GiB", "10 minutes", "1 GiB"):
        assert text in page
    assert recipe.LARGEST_SCRIPT == 64 << 10
    assert recipe.LONGEST_LIMIT == 6 * 3600
    assert recipe.MEMORY_BOUNDS == (64 << 20, 64 << 30)
    assert recipe.DISK_BOUNDS == (1 << 20, 6 << 30)
    assert (recipe.DEFAULT_LIMIT, recipe.DEFAULT_DISK) == (600, 1 << 30)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("packages = [\n'bc',\n'-o']", 3, "found '-o', expected a package's name"),
        ("package = ['bc']", 1, "the unknown key 'package', .*did you mean packages"),
        ("\nlimit = '1m'", 2, r"did you mean limit in \[script\]"),
        ("name = 'A b'", 1, "expected an image's name"),
        ("suite = 'sid'", 1, "found 'sid', expected 'bookworm'"),
        ("architecture = 'mips'", 1, "expected 'amd64' or 'arm64'"),
        ("kernel = 'uml'", 1, "expected 'debian' or 'small'"),
        ("recommends = 1", 1, "expected true or false"),
        ("pip = ['git+https://x']", 1, "expected a package's name"),
        ('pip = ["a\\u0007"]', 1, "without control characters"),
        ("memory = '1K'", 1, "expected a size"),
        ("memory = '1T'", 1, "64.0 MiB to 64.0 GiB"),
        ("[[files]]\nto = '/opt/x'", 1, "no from"),
        ("[[files]]\nfrom = '../secret'\nto = '/opt/x'", 2, "without '..'"),
        ("[[files]]\nfrom = '/etc/passwd'\nto = '/opt/x'", 2, "relative"),
        ("[[files]]\nfrom = 'none'\nto = '/opt/x'", 2, "No such file"),
        ("[[files]]\nfrom = 'NUL'\nto = '/opt/x'", 2, "Windows"),
        ("[[files]]\nfrom = 'tables'\nto = 'opt'", 1, "absolute path"),
        ("[[files]]\nfrom = 'tables'\nto = '/proc/x'", 1, "another directory than /proc"),
        ("[[files]]\nfrom = 'tables'\nto = \"/opt/a\\u001b\"", 3, "without control characters"),
        ("[script]\nlimit = 5", 1, "neither file nor text"),
        ("[script]\nfile = 'setup.sh'\ntext = 'x'", 1, "both file and text"),
        ("[script]\nfile = '../secret'", 2, "without '..'"),
        ("[script]\nfile = 'tables'", 2, "expected a file that can be read"),
        ('[script]\ntext = "a\\u001b[2J"', 2, r"'\\x1b' in line 1 of the script"),
        ("[script]\ntext = 'a'\nlimit = '7h'", 3, "at most 6 hours"),
        ("[script]\ntext = 'a'\ndisk = '7G'", 3, "a size from 1.0 MiB to 6.0 GiB"),
        ("[script]\ntext = 'a'\ndisk = '1K'", 3, "a size from 1.0 MiB to 6.0 GiB"),
        ("[check]\ncommand = []", 2, "no program to run"),
        ('[check]\ncommand = ["a\\u0001"]', 2, "without control characters"),
        ("script = 'setup.sh'", 1, "expected a table"),
        ("packages = [", 1, "valid TOML"),
    ],
)
def test_what_is_refused(directory: Path, text: str, line: int, why: str) -> None:
    with pytest.raises(JobFileError, match=why) as refused:
        read(directory, text)
    assert refused.value.message.startswith(f"{directory}/image.toml:{line}: found ")
    assert "job" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize("key", ["[[files]]\nto = '/opt/x'\nfrom", "[script]\nfile"])
def test_links_do_not_lead_out_of_the_directory(directory: Path, key: str) -> None:
    (directory / "link").symlink_to("../secret")
    (directory / "inside").symlink_to("setup.sh")
    with pytest.raises(JobFileError, match="'link', a link that leads out"):
        read(directory, f"{key} = 'link'")
    read(directory, f"{key} = 'inside'")


def test_links_within_a_directory_come_as_links(directory: Path) -> None:
    """What they lead to is not read."""
    (directory / "tables/link").symlink_to("../../secret")
    (file,) = read(directory, "files = [{ from = 'tables', to = '/opt/' }]").files
    assert file.size == 1


def test_a_script_that_is_too_long_or_no_text(directory: Path) -> None:
    path = directory / "setup.sh"
    for content, why in (
        (b"#" * (recipe.LARGEST_SCRIPT + 1), "more than 64 KiB"),
        (b"\xff", "not UTF-8"),
        (b"a\nb\r\n", r"'\\r' in line 2"),
    ):
        path.write_bytes(content)
        with pytest.raises(JobFileError, match=why):
            read(directory, "[script]\nfile = 'setup.sh'")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(JobFileError, match="a file that can be read"):
        read(directory, "[script]\nfile = 'setup.sh'")


def test_files_are_limited_together(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boincvm.image.customization._MOST_BYTES", 0)
    with pytest.raises(JobFileError, match=r"image.toml:1: found all --file have"):
        read(directory, "files = [{ from = 'tables', to = '/opt/' }]")


def test_which_names_are_recipes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    assert recipe_path("own") is None
    assert recipe_path("x" * 300) is None  # which no file can be called, as in a closed directory
    (directory / "image.toml").touch()
    assert recipe_path("own") == Path("own/image.toml")
    assert recipe_path("./other") == Path("other/image.toml")
    assert recipe_path(".") == Path("image.toml")
    assert recipe_path("other.toml") == Path("other.toml")
    assert recipe_path("sci") is None


@pytest.mark.parametrize("name", ["data", "opencl", "sci"])
def test_the_recipes_that_come_with_boincvm(tmp_path: Path, name: str) -> None:
    path = write_recipe(name, tmp_path / name)
    found = read_recipe(path)
    assert found.name == name
    assert found.packages
    assert found.check is not None
    assert f"`{name}`" in (DOCS / "images.md").read_text()


def test_a_recipe_replaces_none(tmp_path: Path) -> None:
    assert list(ready_recipes()) == ["data", "opencl", "sci"]
    assert all(ready_recipes().values())
    (tmp_path / "image.toml").write_text("mine")
    with pytest.raises(OutputFileError, match="exists already"):
        write_recipe("sci", tmp_path)
    assert (tmp_path / "image.toml").read_text() == "mine"
    with pytest.raises(UsageError, match="unknown recipe 'sco'") as refused:
        write_recipe("sco", tmp_path / "new")
    assert "did you mean sci" in refused.value.hint
    assert not (tmp_path / "new").exists()
