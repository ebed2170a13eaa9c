"""Which programs a job.xml may start on the host depends on its origin."""

import shutil

import pytest

from support.host_slot import HostSlot

OUT = "<stdout_filename>out</stdout_filename>"


def lay(slot: HostSlot, *, signed_job: bool, application: str) -> None:
    """Make a signed program `app` and an unsigned one `mine`, both in the project's directory."""
    project = slot.slot.project
    for name in ("app_1.0", "wu_mine"):
        (project / name).write_text(f"#!/bin/sh\necho begin  # {name}\n")
        (project / name).chmod(0o755)
    slot.slot.link("app", "app_1.0")
    slot.slot.link("mine", "wu_mine")
    text = f"<job_desc><task><application>{application}</application>{OUT}</task></job_desc>"
    (project / "job_file").write_text(text)
    slot.slot.link("job.xml", "job_file")
    slot.slot.app_files = ["app_1.0", *(["job_file"] if signed_job else [])]
    slot.slot.write_init_data()


@pytest.mark.parametrize("application", ["mine", "loose", "/bin/echo"])
async def test_an_unsigned_job_starts_no_unsigned_program(slot: HostSlot, application: str) -> None:
    slot.script("loose", "echo begin  # loose")
    lay(slot, signed_job=False, application=application)
    end = await slot.run()
    assert end.status == 206, slot.stderr
    assert "it is not signed" in end.text
    assert slot.text("out") == ""


@pytest.mark.parametrize(
    ("signed_job", "application"), [(False, "app"), (True, "app"), (True, "mine"), (True, "loose")]
)
async def test_what_is_signed_may(slot: HostSlot, signed_job: bool, application: str) -> None:
    slot.script("loose", "echo begin  # loose")
    lay(slot, signed_job=signed_job, application=application)
    await slot.ends_well()
    assert slot.text("out") == "begin\n"


@pytest.mark.parametrize("element", ["stdout_filename", "stderr_filename"])
async def test_no_output_replaces_a_file_of_the_app_version(slot: HostSlot, element: str) -> None:
    lay(slot, signed_job=False, application="app")
    text = f"<task><application>app</application><{element}>app</{element}></task>"
    (slot.slot.project / "job_file").write_text(f"<job_desc>{text}</job_desc>")
    end = await slot.run()
    assert end.status == 206, slot.stderr
    assert "cannot be an output" in end.text
    assert (slot.slot.project / "app_1.0").read_text() == "#!/bin/sh\necho begin  # app_1.0\n"


def copy(slot: HostSlot, name: str, original: str) -> None:
    """Copy a file as the client does for <copy_file/>."""
    (slot.path / name).unlink(missing_ok=True)
    shutil.copy(slot.slot.project / original, slot.path / name)


@pytest.mark.parametrize("application", ["mine", "loose", "app"])
async def test_a_signed_job_that_is_copied(slot: HostSlot, application: str) -> None:
    slot.script("loose", "echo begin  # loose")
    lay(slot, signed_job=True, application=application)
    copy(slot, "job.xml", "job_file")
    copy(slot, "app", "app_1.0")
    await slot.ends_well()
    assert slot.text("out") == "begin\n"


async def test_a_signed_program_that_is_copied(slot: HostSlot) -> None:
    lay(slot, signed_job=False, application="app")
    copy(slot, "job.xml", "job_file")
    copy(slot, "app", "app_1.0")
    await slot.ends_well()
    assert slot.text("out") == "begin\n"


@pytest.mark.parametrize("name", ["app", "app_1.0"])
async def test_the_name_of_a_program_proves_nothing(slot: HostSlot, name: str) -> None:
    """A file of the slot may have a signed one's name, logical or physical, and its length."""
    lay(slot, signed_job=False, application=name)
    (slot.path / name).unlink(missing_ok=True)
    signed = (slot.slot.project / "app_1.0").read_text()
    slot.write(name, signed.replace("begin", "other"), executable=True)
    end = await slot.run()
    assert end.status == 206, slot.stderr
    assert "it is not signed" in end.text
    assert slot.text("out") == ""


async def test_the_name_of_a_job_proves_nothing(slot: HostSlot) -> None:
    lay(slot, signed_job=True, application="mine")
    job_file = slot.slot.project / "job_file"
    (slot.path / "job.xml").unlink()
    shutil.copy(job_file, slot.path / "job.xml")
    job_file.write_text(job_file.read_text().replace(">mine<", ">nine<"))
    end = await slot.run()
    assert end.status == 206, slot.stderr
    assert "it is not signed" in end.text
    assert slot.text("out") == ""


async def test_an_output_in_place_of_a_copy(slot: HostSlot) -> None:
    """If an unsigned job changes its copy of a signed program, the copy is unsigned."""
    lay(slot, signed_job=False, application="app")
    copy(slot, "copy", "app_1.0")
    first = "<task><application>app</application><stdout_filename>copy</stdout_filename></task>"
    text = f"<job_desc>{first}<task><application>copy</application>{OUT}</task></job_desc>"
    (slot.slot.project / "job_file").write_text(text)
    end = await slot.run()
    assert end.status == 206, slot.stderr
    assert "copy is not a file of the app version" in end.text
    assert slot.text("out") == ""
