"""Run `boincvm cp` to and from a real chirp_server."""

import asyncio
import json
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode
from support.chirp_server import real_server

pytestmark = pytest.mark.timeout(120)


async def cp(source: object, destination: object, *options: str) -> int:
    return await asyncio.to_thread(main, ["cp", *options, str(source), str(destination)])


async def test_files_and_trees_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_bytes(b"content")
    (tree / "link").symlink_to("deep/file")
    async with real_server(tmp_path) as server:
        assert await cp(tree, server.url("there")) == 0
        assert "left out: 'link'" in capsys.readouterr().err
        assert await cp(server.url("there"), tmp_path / "back") == 0
        (tmp_path / "into").mkdir()
        assert await cp(server.url("there/deep/file"), tmp_path / "into", "--json") == 0
        reported = json.loads(capsys.readouterr().out)
    assert reported == {"files": 1, "bytes": 7, "left_out": []}
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == b"content"
    assert (tmp_path / "into" / "file").read_bytes() == b"content"


@pytest.mark.parametrize("other", ["web.1:data", "chirp://b/data"])
async def test_one_side_is_local(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await cp("chirp://a/data", other) == ExitCode.USAGE
    assert "copy in two steps" in capsys.readouterr().err
