"""A volunteer who installs nothing: the real client in a root that holds little more than it.

There are its libraries, a shell, and what the main program of the manual asks for; no Python, no
QEMU, no image.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from boincvm.boinc.client_directory import Output, TaskFile, Work
from boincvm.image.pack import pack_image
from boincvm.image.store import ImageStore
from boincvm.project.bundle.archive import pack_programs
from support.boinc.rig import CLIENT, MakeRig
from support.bundles import LINUX, PAGES, made_folder, made_qemu

PROGRAMS = ("boinc", "sh", "flock", "mkdir", "mv", "rm", "sed", "tar", "xz")
JOB = b"""\
<job_desc><task>
  <application>uname</application><virtualmachine>vm</virtualmachine>
  <image>base-1.0.tar.gz</image><stdout_filename>out</stdout_filename>
</task></job_desc>
"""
LIMIT = 300.0
"""Seconds that the task may take on a busy host."""


def bare_root() -> list[str]:
    """Return the command that runs another one in such a root."""
    root = ["bwrap", "--die-with-parent", "--dev", "/dev", "--bind", "/proc", "/proc"]
    for link in ("bin", "lib", "lib64"):
        root += ["--symlink", f"usr/{link}", f"/{link}"]
    files = {os.path.realpath(str(shutil.which(name))): f"/usr/bin/{name}" for name in PROGRAMS}
    for program in tuple(files):
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for library in re.findall(r"(/\S+) \(0x", linked.stdout):
            directory = os.path.realpath(Path(library).parent)
            files[os.path.realpath(library)] = f"{directory}/{Path(library).name}"
    for file, name in files.items():
        root += ["--ro-bind", file, name]
    return [*root, "--tmpfs", "/tmp"]


@pytest.mark.timeout(900)
def test_a_volunteer_installs_nothing(
    make_rig: MakeRig, base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (PAGES / "volunteer-folder.md").read_text()
    main_program = page[page.index("#!/bin/sh") :].partition("```")[0].encode()
    folder, qemu, image = (tmp_path / name for name in ("folder", "qemu", "image"))
    pack_programs(made_folder(LINUX), "boincvm", folder, 0)
    pack_programs(made_qemu(), "qemu", qemu, 0)
    with ImageStore().open("base") as base:
        pack_image(base, image)
    work = Work(
        [
            TaskFile("sim_wrapper_1.0", main_program, executable=True),
            TaskFile(f"boincvm_0.1_{LINUX}.tar.xz", folder, "boincvm.tar.xz"),
            TaskFile(f"boincvm_qemu_7.2_{LINUX}.tar.xz", qemu, "qemu.tar.xz"),
            TaskFile("base-1.0.tar.gz", image, "base-1.0.tar.gz"),
            TaskFile("sim_job_1.0.xml", JOB, "job.xml"),
        ],
        outputs=[Output("work_0_0", "out")],
    )
    rig = make_rig(work, environment={"PATH": "/usr/bin", "BOINCVM_GOLDEN": "no"})
    client = tmp_path / "client"
    root = shlex.join([*bare_root(), "--bind", str(rig.root), str(rig.root), "/usr/bin/boinc"])
    client.write_text(f'#!/bin/sh\nexec {root} "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv(CLIENT, str(client))
    rig.start()
    ended = rig.ended(LIMIT)
    assert ended.is_success, ended.stderr
    assert (rig.project / "work_0_0").read_text() == "Linux\n"
    assert "QEMU of the app version was unpacked" in ended.stderr
    # The volunteer's computer has three things more, and the project its result.
    came = {file.name for file in work.app_files}
    unpacked = f"boincvm_0.1_{LINUX}"
    left = {path.name for path in rig.project.iterdir()} - came
    assert left == {unpacked, f"{unpacked}.lock", "boincvm-images", "work_0_0"}
    assert str(rig.home) not in ended.stderr
    assert len(list(rig.home.glob(".cache/boincvm/qemu/*/qemu-system-x86_64"))) == 1
    assert not (rig.home / ".local").exists()
