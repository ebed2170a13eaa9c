"""What of an image stays when it is shrunk."""

from pathlib import Path

from boincvm.image.kept_files import ALWAYS, files_to_keep, with_siblings

FILES = (
    *("usr/bin/dash", "usr/bin/ecm", "usr/bin/python3.11", "usr/bin/rpm", "usr/sbin/tool"),
    *("usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libgmp.so.10.4.1"),
    *("usr/lib/x86_64-linux-gnu/libz.so.1.2", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    *("usr/lib/boincvm/agent.pyz", "usr/share/doc/ecm/copyright", "usr/share/doc/ecm/README"),
    *("usr/lib/python3.11/re.py", "usr/lib/python3.11/__pycache__/re.cpython-311.pyc"),
    *("usr/lib/python3.11/json/a.py", "usr/lib/python3.11/json/__pycache__/a.cpython-311.pyc"),
    *("etc/passwd", "usr/lib/python3.11/os.py"),
)
LINKS = {
    "bin": "usr/bin",
    "usr/lib/x86_64-linux-gnu/libgmp.so.10": "usr/lib/x86_64-linux-gnu/libgmp.so.10.4.1",
    "usr/lib/x86_64-linux-gnu/libgmp.so": "usr/lib/x86_64-linux-gnu/libgmp.so.10",
    "usr/lib/x86_64-linux-gnu/libz.so.1": "usr/lib/x86_64-linux-gnu/libz.so.1.2",
    "usr/bin/sh": "usr/bin/dash",
}
FOLDERS = sorted(
    {parent.as_posix() for name in FILES for parent in Path(name).parents[:-1]}
    | {"work", "var", "var/tmp", "usr/share/empty", "usr/share/empty/more"}
)
ENTRIES = (*FILES, *LINKS, *FOLDERS)


def staying(*touched: str) -> set[str]:
    return set(files_to_keep(ENTRIES, FOLDERS, LINKS, touched))


def test_what_is_needed_in_any_case_stays() -> None:
    found = staying()
    assert {
        *("usr/bin/dash", "usr/bin/sh", "usr/bin/python3.11", "usr/lib/boincvm/agent.pyz", "bin"),
        *("usr/lib/x86_64-linux-gnu/libc.so.6", "usr/share/doc/ecm/copyright", "etc/passwd"),
        "usr/lib/python3.11/os.py",
        *("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "work", "var/tmp", "usr/lib"),
    } <= found
    assert not found & {
        *("usr/bin/ecm", "usr/sbin/tool", "usr/share/doc/ecm/README", "usr/lib/python3.11/re.py"),
        *("usr/lib/x86_64-linux-gnu/libz.so.1", "usr/share/empty/more", "usr/lib/python3.11/json"),
    }


def test_what_was_touched_stays_with_the_links_to_it() -> None:
    found = staying("usr/bin/ecm", "usr/lib/x86_64-linux-gnu/libgmp.so.10.4.1")
    assert "usr/bin/ecm" in found
    assert {one.rpartition("/")[2] for one in found if "libgmp" in one} == {
        *("libgmp.so", "libgmp.so.10", "libgmp.so.10.4.1"),
    }
    assert "usr/lib/x86_64-linux-gnu/libz.so.1.2" not in found


def test_compiled_code_stays_with_its_source_which_python_only_looks_for() -> None:
    found = staying("usr/lib/python3.11/__pycache__/re.cpython-311.pyc")
    assert "usr/lib/python3.11/re.py" in found
    assert "usr/lib/python3.11/json/a.py" not in found


def test_a_guest_cannot_name_what_the_image_does_not_have() -> None:
    assert staying("../../etc/shadow", "/etc/shadow", "usr/bin/../bin/rpm", "") == staying()


def test_all_files_beside_those_that_were_touched() -> None:
    assert with_siblings(["usr/bin/ecm"], FILES) == {
        *("usr/bin/dash", "usr/bin/ecm", "usr/bin/python3.11", "usr/bin/rpm"),
    }


def test_the_manual_lists_what_always_stays() -> None:
    text = (Path(__file__).parents[3] / "docs/images.md").read_text()
    for reason in ALWAYS:
        assert f"| {reason} |" in text
