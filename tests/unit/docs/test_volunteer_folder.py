"""The app version that the page about the volunteer's folder shows."""

import re
from pathlib import Path

from boincvm.boinc.trial import read_version

PAGE = Path(__file__).parents[3] / "docs/volunteer-folder.md"


def test_its_version_file_names_the_files_of_the_table(tmp_path: Path) -> None:
    text = PAGE.read_text()
    section = text.partition("### The main program for Linux")[2].partition("\n### ")[0]
    sample = re.search(r"```xml\n(<version>.*?</version>\n)```", section, re.DOTALL)
    assert sample is not None
    (tmp_path / "version.xml").write_text(sample[1])
    rows = re.findall(r"^\| `([^`]+)`(?:, main program)? \|(?: `([^`]+)`)?", section, re.MULTILINE)
    for physical, _ in rows:
        (tmp_path / physical).touch()
    (tmp_path / rows[0][0]).chmod(0o755)  # as the page says
    version = read_version(tmp_path)
    assert [(file.name, file.open_name or "") for file in version.files] == rows
    assert version.is_wrapper
    assert version.files[0].executable
    assert f"chmod +x {rows[0][0]}" in section
