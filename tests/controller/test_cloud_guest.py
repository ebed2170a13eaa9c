"""The program of a seed, run by a Python that has nothing else: a guest on a controller's bus."""

import asyncio
import io
import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import pytest

from boincvm.controller.controller import run_controller
from boincvm.image.cloud.guest_program import guest_program
from support.controller.controlled import Controlled
from support.controller.invited import LOOPBACK, invite

pytestmark = pytest.mark.timeout(240)
LIMIT = 120.0


async def start(
    library: Path, settings: Path, home: Path, **streams: int
) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": str(library), "BOINCVM_HOME": str(home)}
    # -S: without the package that is installed here.
    words = ("-S", "-m", "boincvm.node", str(settings))
    return await asyncio.create_subprocess_exec(
        sys.executable, *words, env=environment, cwd=home.parent, **streams
    )  # type: ignore[arg-type]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(guest_program())) as archive:
        archive.extractall(tmp_path / "library")
    return tmp_path / "library"


async def test_it_runs_commands(library: Path, tmp_path: Path) -> None:
    assert guest_program() == guest_program()
    settings = tmp_path / "guest.json"
    async with run_controller(tmp_path / "controller", listen=LOOPBACK) as controller:
        asked = Controlled(controller)
        bus = await invite(controller, "lab")
        given = {**bus._asdict(), "id": "lab.1", "labels": {"site": "x"}}
        settings.write_text(json.dumps(given))
        process = await start(library, settings, tmp_path / "home")
        try:
            async with asyncio.timeout(LIMIT):
                guest = await controller.hub.registry.wait_for("lab.1")
            assert guest.labels["site"] == "x"
            script = "import boincvm; print(boincvm.__file__)"
            answers = await asked.run("lab.1", sys.executable, "-S", "-c", script)
            assert answers == {"lab.1": (0, f"{library}/boincvm/__init__.py\n")}
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(LIMIT):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"labels": 1}', "[" * 100_000])
async def test_settings_that_are_no_such(library: Path, tmp_path: Path, content: str) -> None:
    settings = tmp_path / "guest.json"
    settings.write_text(content)
    process = await start(library, settings, tmp_path / "home", stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(LIMIT):
        _, err = await process.communicate()
    assert b"does not say where the bus is" in err
    assert process.returncode not in (0, 1)
