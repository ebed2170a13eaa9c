"""Files to and from guests that are directories of this host, over a bus that loses messages."""

import asyncio
import io
import shutil
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

from boincvm.controller.files.files import Files
from boincvm.controller.guests.registry import Registry
from boincvm.controller.protocol.requests import Reply
from boincvm.errors import BoincvmError, OutputFileError
from boincvm.node.files import NodeFiles
from boincvm.node.responder import Verb
from support.controller.lossy_asks import AskNet, ask_net


class DirectoryFileRoot:
    """Stands in for a machine with `root` as its work directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.go = asyncio.Event()
        self.go.set()
        self.fault: BoincvmError | None = None
        self.puts = 0

    def check(self, _path: PurePosixPath, /) -> None:
        self._check()

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def put(self, source: Path, destination: PurePosixPath, mode: int) -> None:
        self._check()
        await self.go.wait()
        self.puts += 1
        target = self.root / destination
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)
            target.chmod(mode)

    async def get(self, source: PurePosixPath, destination: Path) -> None:
        self._check()
        await self.go.wait()
        found = self.root / source
        if found.is_dir():
            shutil.copytree(found, destination, symlinks=True)
        elif found.is_file():
            shutil.copy2(found, destination)
        else:
            raise OutputFileError(f"the guest has no {source}")


class Hosted:
    """A guest; `hear` gets each request before it is answered, and may answer it itself."""

    def __init__(self, directory: Path) -> None:
        self.root, self.spool = directory / "work", directory / "spool"
        self.root.mkdir(parents=True)
        self.file_root = DirectoryFileRoot(self.root)
        self.files = NodeFiles(self.file_root, self.spool)
        self.pieces = 0
        self.lies: dict[str, Verb] = {}
        self.news = asyncio.Event()
        end = self.files._end

        async def end_and_tell(transfer_id: str) -> None:
            await end(transfer_id)
            self.news.set()

        self.files._end = end_and_tell  # type: ignore[method-assign]
        self.verbs = {name: self._counted(name) for name in self.files.verbs}

    def _counted(self, name: str) -> Verb:
        async def verb(table: Mapping[str, object], data: bytes) -> Reply:
            self.pieces += "piece" in name
            self.news.set()
            return await (self.lies.get(name) or self.files.verbs[name])(table, data)

        return verb

    async def until_pieces(self, count: int) -> None:
        while self.pieces < count:
            self.news.clear()
            await self.news.wait()

    async def until_empty(self) -> None:
        while self.left:
            self.news.clear()
            await self.news.wait()

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.spool.iterdir())


class FileNet:
    def __init__(self, net: AskNet, hosts: Mapping[str, Hosted], spool: Path) -> None:
        self.net = net
        self.hosts = hosts
        self.host = next(iter(hosts.values()))
        self._spool = spool
        self._registry = Registry(lambda _guest, _change: None)
        for guest in net.guests.values():
            self._registry.hello(guest)
        self.files = self.another()

    def another(self) -> Files:
        """Return the files of a controller that was restarted."""
        hub = SimpleNamespace(requester=self.net.requester, registry=self._registry)
        return Files(hub, self._spool)  # type: ignore[arg-type]


@asynccontextmanager
async def file_net(directory: Path, *names: str, seed: int = 0) -> AsyncIterator[FileNet]:
    hosts = {name: Hosted(directory / name) for name in names or ("g1",)}
    spool = directory / "controller"
    spool.mkdir()
    async with ask_net({name: one.verbs for name, one in hosts.items()}, seed) as net:
        made = FileNet(net, hosts, spool)
        try:
            yield made
        finally:
            await made.files.close()
            for one in hosts.values():
                one.file_root.go.set()
                await one.files.close()
                assert not one.spool.exists()
            assert list(spool.iterdir()) == []


async def pieces_of(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), size):
        yield data[offset : offset + size]


def tar_of(*members: tuple[str, bytes | str | None, int]) -> bytes:
    """Make a tar archive.

    A member is its name; its content, a link's target, or None for a directory; its mode.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, mode in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()
