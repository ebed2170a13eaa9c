"""examples/boinc-ecm as a project's server would deliver it to the client."""

import os
import xml.etree.ElementTree as ElementTree

from support import CHECKOUT
from support.boinc.layout import Output, TaskFile, Work

EXAMPLE = CHECKOUT / "examples/boinc-ecm"
NUMBER = EXAMPLE / "number.txt"


def version_files() -> list[TaskFile]:
    """Return the app version's files by version.xml, the main program first."""
    version = ElementTree.parse(EXAMPLE / "app/version.xml").getroot()
    files = sorted(version.iter("file"), key=lambda file: file.find("main_program") is None)
    return [
        _app_file(file.findtext("physical_name", ""), file.findtext("logical_name", ""))
        for file in files
    ]


def app_info_files() -> list[TaskFile]:
    """Return the same files by app_info.xml."""
    info = ElementTree.parse(EXAMPLE / "app_info.xml").getroot()
    references = sorted(info.iter("file_ref"), key=lambda ref: ref.find("main_program") is None)
    return [
        _app_file(ref.findtext("file_name", ""), ref.findtext("open_name", ""))
        for ref in references
    ]


def declared_executables() -> set[str]:
    """Return the files that app_info.xml declares executable."""
    info = ElementTree.parse(EXAMPLE / "app_info.xml").getroot()
    files = info.iter("file_info")
    return {file.findtext("name", "") for file in files if file.find("executable") is not None}


def _app_file(name: str, open_name: str) -> TaskFile:
    path = EXAMPLE / "app" / name
    return TaskFile(name, path, open_name, executable=os.access(path, os.X_OK))


def work(command_line: str | None = None) -> Work:
    """Make one task by version.xml and the templates; `command_line` replaces the template's."""
    into = ElementTree.parse(EXAMPLE / "templates/ecm_in").getroot()
    out = ElementTree.parse(EXAMPLE / "templates/ecm_out").getroot()
    version = ElementTree.parse(EXAMPLE / "app/version.xml").getroot()

    def said(name: str) -> str:
        return into.findtext(f"workunit/{name}", "")

    return Work(
        version_files(),
        inputs=[
            TaskFile("work_in", NUMBER, ref.findtext("open_name", ""))
            for ref in into.iter("file_ref")
        ],
        outputs=[
            Output(f"work_0_{index}", ref.findtext("open_name", ""))
            for index, ref in enumerate(out.iter("file_ref"))
        ],
        command_line=said("command_line") if command_line is None else command_line,
        api_version=version.findtext("api_version", ""),
        is_wrapper=version.find("is_wrapper") is not None,
        memory_bound=float(said("rsc_memory_bound")),
        disk_bound=float(said("rsc_disk_bound")),
        operations=float(said("rsc_fpops_est")),
        operations_bound=float(said("rsc_fpops_bound")),
    )
