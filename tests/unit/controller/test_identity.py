"""How a controller recognizes its own commands on a shared bus."""

from pathlib import Path

import pytest

from boincvm.controller.controller import run_controller


async def identity(directory: Path) -> str:
    async with run_controller(directory) as controller:
        return controller.hub.commands._owner


async def test_each_controller_has_its_own_for_all_its_lives(tmp_path: Path) -> None:
    first = await identity(tmp_path / "a")
    assert len(first) == 17
    assert await identity(tmp_path / "a") == first
    assert await identity(tmp_path / "b") != first


@pytest.mark.parametrize("damage", [b"", b"0123", b"\xff" * 16, b"/" * 16, b"a" * 17])
async def test_what_is_none_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    first = await identity(tmp_path / "a")
    (tmp_path / "a/identity").write_bytes(damage)
    second = await identity(tmp_path / "a")
    assert len(second) == 17
    assert second != first
