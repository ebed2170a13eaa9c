"""Which programs a job.xml may start on the host: it depends on where that came from."""

import pytest
from host_slot import HostSlot

OUT = "<stdout_filename>out</stdout_filename>"


def lay(slot: HostSlot, *, signed_job: bool, application: str) -> None:
    """A signed program `app`, an unsigned one `mine`, both in the project's directory."""
    project = slot.slot.project
    for name in ("app_1.0", "wu_mine"):
        (project / name).write_text("#!/bin/sh\necho begin\n")
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
    slot.script("loose", "echo begin")
    lay(slot, signed_job=False, application=application)
    end = await slot.run()
    assert end.status == 206, slot.stderr
    assert "nobody has signed it" in end.text
    assert slot.text("out") == ""


@pytest.mark.parametrize(
    ("signed_job", "application"), [(False, "app"), (True, "app"), (True, "mine"), (True, "loose")]
)
async def test_what_is_signed_may(slot: HostSlot, signed_job: bool, application: str) -> None:
    slot.script("loose", "echo begin")
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
    assert (slot.slot.project / "app_1.0").read_text() == "#!/bin/sh\necho begin\n"
