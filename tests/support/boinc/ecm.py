"""examples/boinc-ecm as a project's server would deliver it to the client."""

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from boincvm.boinc.client_directory import Output, TaskFile, Work
from support import CHECKOUT

EXAMPLE = CHECKOUT / "examples/boinc-ecm"
NUMBER = EXAMPLE / "number.txt"


PACKED = "ecm_image_1.0.tar.gz"
"""The file of the app version that is not here: the user of the example packs it."""


def version_files(packed: Path | None = None) -> list[TaskFile]:
    """Return the app version's files by version.xml, the main program first.

    `packed`: the packed image; without one the job uses the image `sci` of this host.
    """
    version = ElementTree.parse(EXAMPLE / "app/version.xml").getroot()
    files = sorted(version.iter("file"), key=lambda file: file.find("main_program") is None)
    return _app_files(
        [(file.findtext("physical_name", ""), file.findtext("logical_name", "")) for file in files],
        packed,
    )


def app_info_files(packed: Path | None = None) -> list[TaskFile]:
    """Return the same files by app_info.xml."""
    info = ElementTree.parse(EXAMPLE / "app_info.xml").getroot()
    references = sorted(info.iter("file_ref"), key=lambda ref: ref.find("main_program") is None)
    names = [(ref.findtext("file_name", ""), ref.findtext("open_name", "")) for ref in references]
    return _app_files(names, packed)


def declared_executables() -> set[str]:
    """Return the files that app_info.xml declares executable."""
    info = ElementTree.parse(EXAMPLE / "app_info.xml").getroot()
    files = info.iter("file_info")
    return {file.findtext("name", "") for file in files if file.find("executable") is not None}


def _app_files(names: list[tuple[str, str]], packed: Path | None) -> list[TaskFile]:
    files = []
    for name, open_name in names:
        path = EXAMPLE / "app" / name
        content: bytes | Path = path
        if name == PACKED and packed is None:
            continue
        if name == PACKED and packed is not None:
            content = packed
        elif open_name == "job.xml" and packed is None:
            shipped, installed = b"<image>ecm_image.tar.gz</image>", b"<image>sci</image>"
            content = path.read_bytes()
            assert shipped in content
            content = content.replace(shipped, installed)
        files.append(TaskFile(name, content, open_name, executable=os.access(path, os.X_OK)))
    return files


def work(command_line: str | None = None, packed: Path | None = None) -> Work:
    """Make one task by version.xml and the templates; `command_line` replaces the template's.

    `packed`: see `version_files`.
    """
    into = ElementTree.parse(EXAMPLE / "templates/ecm_in").getroot()
    out = ElementTree.parse(EXAMPLE / "templates/ecm_out").getroot()
    version = ElementTree.parse(EXAMPLE / "app/version.xml").getroot()

    def text(name: str) -> str:
        return into.findtext(f"workunit/{name}", "")

    return Work(
        version_files(packed),
        inputs=[
            TaskFile("work_in", NUMBER, ref.findtext("open_name", ""))
            for ref in into.iter("file_ref")
        ],
        outputs=[
            Output(f"work_0_{index}", ref.findtext("open_name", ""))
            for index, ref in enumerate(out.iter("file_ref"))
        ],
        command_line=text("command_line") if command_line is None else command_line,
        api_version=version.findtext("api_version", ""),
        is_wrapper=version.find("is_wrapper") is not None,
        memory_bound=float(text("rsc_memory_bound")),
        disk_bound=float(text("rsc_disk_bound")),
        operations=float(text("rsc_fpops_est")),
        operations_bound=float(text("rsc_fpops_bound")),
    )
