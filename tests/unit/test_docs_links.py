"""Links between the pages of the documentation lead to existing pages and headings."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_there_are_pages() -> None:
    assert len(PAGES) > 20


def lost_links(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    lost = []
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    assert lost_links(page) == []


def test_the_debian_package_has_what_its_pages_link_to(tmp_path: Path) -> None:
    subprocess.run(["packaging/pages.sh", tmp_path], cwd=ROOT, timeout=60, check=True)
    pages = [tmp_path / "README.md", *tmp_path.rglob("*/*.md")]
    assert len(pages) > 20
    lost = {str(page.relative_to(tmp_path)): lost_links(page) for page in pages}
    assert {page: links for page, links in lost.items() if links} == {}
