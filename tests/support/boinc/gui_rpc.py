"""The BOINC client's GUI RPC: XML requests over its UNIX socket, each ended by a byte 3.

See https://github.com/BOINC/boinc/wiki/GuiRpcProtocol.
"""

import hashlib
import os
import socket
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Self

END = b"\x03"
LIMIT = 20.0
"""Seconds that an answer may take."""
MOST = 1 << 22
"""The longest answer, in bytes."""


class GuiRpcError(Exception):
    """The client refused a request."""


class GuiRpc:
    """A connection that may do whatever a local user may."""

    def __init__(self, directory: Path) -> None:
        """Connect to the client with the data directory `directory`.

        Raises OSError if it does not listen.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(LIMIT)
        try:
            self._connect(directory)
            nonce = self.ask("<auth1/>").findtext("nonce", "")
            password = (directory / "gui_rpc_auth.cfg").read_text().strip()
            digest = hashlib.md5((nonce + password).encode()).hexdigest()
            answer = self.ask(f"<auth2><nonce_hash>{digest}</nonce_hash></auth2>")
            if answer.find("authorized") is None:
                raise GuiRpcError("the client does not know the password")
        except BaseException:
            self.close()
            raise

    def _connect(self, directory: Path) -> None:
        # The full path may be too long for the address of a UNIX socket.
        descriptor = os.open(directory, os.O_PATH)
        try:
            self._socket.connect(f"/proc/self/fd/{descriptor}/boinc_socket")
        finally:
            os.close(descriptor)

    def ask(self, request: str) -> ElementTree.Element:
        """Return the answer's root. Raises GuiRpcError if the answer is an error."""
        text = f"<boinc_gui_rpc_request>\n{request}\n</boinc_gui_rpc_request>\n"
        self._socket.sendall(text.encode() + END)
        answer = b""
        while not answer.endswith(END):
            data = self._socket.recv(1 << 16)
            if not data or len(answer) > MOST:
                raise ConnectionError("the client ended the connection")
            answer += data
        root = ElementTree.fromstring(answer[:-1].decode("utf-8", "replace").strip())
        error = root.findtext("error")
        if error is not None:
            raise GuiRpcError(error)
        return root

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
