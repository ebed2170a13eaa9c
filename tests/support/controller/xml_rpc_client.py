"""A client of CERN's VM Controller, which speaks XML-RPC to ours."""

import asyncio
import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest

from support.controller.faces import TOKEN, Faces


class UnixTransport(xmlrpc.client.Transport):
    """Requests over the controller's UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("localhost")
        made.sock = socket.socket(socket.AF_UNIX)
        made.sock.connect(self._path)
        self._connection = host, made  # type: ignore[assignment]  # what close() closes
        return made


class XmlRpcClient:
    """Python's own client, in a separate thread."""

    def __init__(self, faces: Faces, transport: UnixTransport | None = None) -> None:
        self._transport = transport
        self._address = f"http://x:{TOKEN}@127.0.0.1:{faces.port}/RPC2"
        if transport is not None:
            self._address = "http://localhost/RPC2"

    async def __call__(self, name: str, *parameters: object) -> Any:
        def call() -> object:
            with xmlrpc.client.ServerProxy(
                self._address, transport=self._transport, allow_none=True
            ) as proxy:
                method: Any = proxy
                for part in name.split("."):
                    method = getattr(method, part)
                return method(*parameters)

        return await asyncio.to_thread(call)

    async def fault(self, name: str, *parameters: object) -> str:
        """Return what the fault says that the call must end with."""
        with pytest.raises(xmlrpc.client.Fault) as caught:
            await self(name, *parameters)
        return caught.value.faultString

    async def finished(self, command: str) -> Any:
        """Return the results of a command once it has ended on all machines."""
        async with asyncio.timeout(20):
            while True:
                reported = await self("getCmdResults", command)
                results = [reported] if "out" in reported else reported.values()
                if all(one["finished"] for one in results):
                    return reported
