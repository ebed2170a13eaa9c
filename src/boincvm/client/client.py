"""A synchronous client of the controller's JSON API that needs only the standard library.

    client = Client(find_address())
    for vm in client.call("list", vms="site=cern")["vms"]: ...

An error in the controller is raised here as a BoincvmError with its message and exit code.
"""

import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

from boincvm.client.address import ControllerAddress
from boincvm.errors import (
    BoincvmError,
    ControllerAwayError,
    ControllerGoneError,
    HostError,
    UsageError,
)
from boincvm.exit_codes import ExitCode
from boincvm.json_value import Json
from boincvm.tree_entries import time_of

CALL_LIMIT = 660.0
"""Seconds of silence; a shim may take ten minutes for a request."""
_LARGEST_RESULT = 256 << 20
_LONGEST_LINE = 16 << 20
_LARGEST_ERROR = 1 << 20
_CHUNK = 1 << 18

Table = dict[str, Json]
Body = bytes | BinaryIO | Iterable[bytes] | None


class Gotten(NamedTuple):
    """What `Client.get` yields: a file or a tree."""

    is_tree: bool
    """True for a tree, which comes as a tar stream."""
    mode: int
    size: int | None
    """Bytes in `chunks`; None if not known."""
    digest: str
    """Digest of the whole, from its first byte."""
    chunks: Iterator[bytes]
    """The bytes from the requested offset on; raises BoincvmError if they break off."""
    modified: int | None = None
    """Nanoseconds since 1970; None if not known."""


class Client:
    """A client of one controller. Each request has its own connection, so threads may share it."""

    def __init__(self, address: ControllerAddress) -> None:
        self.address = address

    def call(self, operation: str, **arguments: object) -> Table:
        """Call an operation; arguments that are None are left out. Raises BoincvmError."""
        path = f"/api/{quote(operation)}"
        with self._query("POST", path, _given(arguments), _JSON) as response:
            return _result(response)

    def events(self, after: int = 0, *, follow: bool = False) -> Iterator[Table]:
        """Yield the events after number `after`.

        With `follow` also yield new ones until the controller ends. Raises BoincvmError.
        """
        query = {"after": str(after), **({"follow": "yes"} if follow else {})}
        yield from self._lines("/api/events", query, is_endless=follow)

    def output(self, command_id: str, *, begin: int = 0) -> Iterator[Table]:
        """Yield a command's output until it has ended.

        Pieces are {"vm", "stream", "offset", "data"} with `data` in base64; the last table is
        {"command"}. Raises BoincvmError.
        """
        path = f"/api/commands/{quote(command_id, safe='')}/output"
        query = {"follow": "yes", "from": str(begin)}
        return self._until_command(self._lines(path, query, is_endless=True))

    def run(self, **arguments: object) -> tuple[Table, Iterator[Table]]:
        """Call the operation `exec`; return its result, and an iterator as of `output`.

        Raises BoincvmError.
        """
        lines = self._lines("/api/exec", {"follow": "yes"}, _given(arguments), is_endless=True)
        begun = next(lines, {}).get("result")
        if not isinstance(begun, dict):
            raise self._has_gone()
        return begun, self._until_command(lines)

    def _until_command(self, lines: Iterator[Table]) -> Iterator[Table]:
        for table in lines:
            yield table
            if "command" in table:
                return
        raise self._has_gone()

    def give_input(self, command_id: str, data: bytes, *, ends: bool = False) -> None:
        """Send input to a command, waiting until there is room. Raises BoincvmError."""
        path = f"/api/commands/{quote(command_id, safe='')}/input"
        path += "?ends=yes" if ends else ""
        with self._query("POST", path, data, _BYTES, limit=None) as response:
            _result(response)

    def put(
        self,
        vms: str,
        path: str,
        body: Body,
        size: int | None,
        *,
        is_tree: bool,
        mode: int,
        transfer: str,
        modified: int | None = None,
    ) -> Table:
        """Put a file or tree into machines; return the outcomes by id.

        `size` is the length of `body` in bytes, if known; `modified` a file's time in nanoseconds
        since 1970. Repeating a put with the same `transfer` continues where it broke off. Raises
        BoincvmError.
        """
        kind = "tree" if is_tree else "file"
        fields = {"vms": vms, "path": path, "kind": kind, "mode": f"{mode:o}", "transfer": transfer}
        if modified is not None:
            fields["modified"] = str(modified)
        query = urlencode(fields)
        headers = {**_BYTES, **({} if size is None else {"Content-Length": str(size)})}
        with self._query("PUT", f"/api/files?{query}", body, headers, limit=None) as response:
            return _result(response)

    @contextmanager
    def get(self, vm: str, path: str, *, transfer: str, begin: int = 0) -> Iterator[Gotten]:
        """Get a file or tree from a machine; the result is valid within the block.

        Repeating a get with the same `transfer` continues from the byte `begin`. Raises
        BoincvmError.
        """
        query = urlencode({"vm": vm, "path": path, "transfer": transfer, "from": begin})
        with self._query("GET", f"/api/files?{query}", limit=None) as response:
            yield Gotten(
                response.headers.get("X-Boincvm-Kind") == "tree",
                _mode(response.headers.get("X-Boincvm-Mode", "")),
                response.length,
                response.headers.get("X-Boincvm-Digest", ""),
                self._chunks(response),
                _time(response.headers.get("X-Boincvm-Modified")),
            )

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while data := response.read(_CHUNK):
            yield data
        if response.length:  # read(n) does not report an early end
            raise self._has_gone()

    def _lines(
        self, path: str, query: Mapping[str, str], body: Body = None, *, is_endless: bool
    ) -> Iterator[Table]:
        path = f"{path}?{urlencode(query)}"
        limit = None if is_endless else CALL_LIMIT
        method, headers = ("GET", {}) if body is None else ("POST", _JSON)
        with self._query(method, path, body, headers, limit=limit) as response:
            while line := response.readline(_LONGEST_LINE):
                table = _table(line)
                if "error" in table:
                    raise error_of(table["error"])
                yield table

    @contextmanager
    def _query(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] = {},
        *,
        limit: float | None = CALL_LIMIT,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and yield a successful response.

        Raises BoincvmError, within the block as well.
        """
        token = self.address.token
        own = {"Authorization": f"Bearer {token}"} if token else {}
        connection = self.address.connection(limit)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise self._unreached(error) from error
            response = _answer(connection, method, path, body, {**headers, **own})
            if response.status >= 400:
                raise _refusal(response, self.address)
            yield response
        except (ConnectionError, http.client.IncompleteRead, http.client.BadStatusLine) as error:
            raise self._has_gone() from error
        except TimeoutError as error:
            raise HostError(f"the controller at {self.address} does not answer") from error
        except http.client.HTTPException as error:
            raise _no_controller(self.address) from error
        finally:
            connection.close()

    def _unreached(self, error: OSError) -> BoincvmError:
        if self.address.path is None:
            reason = error.strerror or str(error)
            return ControllerAwayError(
                f"the controller at {self.address} cannot be reached: {reason}",
                hint="is it running, with --listen? check BOINCVM_CONTROLLER",
            )
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return ControllerAwayError(
                "no controller is running", hint="start one: boincvm controller"
            )
        return HostError(f"the controller's socket cannot be used: {error.strerror or error}")

    def _has_gone(self) -> BoincvmError:
        return ControllerGoneError(
            f"the controller at {self.address} closed the connection",
            hint="machines and commands keep running; start it again: boincvm controller",
        )


_JSON = {"Content-Type": "application/json"}
_BYTES = {"Content-Type": "application/octet-stream"}


def _given(arguments: Mapping[str, object]) -> bytes:
    return json.dumps(
        {name: value for name, value in arguments.items() if value is not None}
    ).encode()


def _answer(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Body,
    headers: Mapping[str, str],
) -> http.client.HTTPResponse:
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        # It may have refused before reading everything; its response can still be read.
        return connection.getresponse()
    return connection.getresponse()


def _result(response: http.client.HTTPResponse) -> Table:
    data = response.read(_LARGEST_RESULT)
    result = _table(data).get("result") if data else {}
    return result if isinstance(result, dict) else {}


def _table(data: bytes) -> Table:
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HostError("the controller's answer is invalid") from error
    if not isinstance(table, dict):
        raise HostError("the controller's answer is invalid")
    return table


def _refusal(response: http.client.HTTPResponse, address: ControllerAddress) -> BoincvmError:
    try:
        error = _table(response.read(_LARGEST_ERROR)).get("error")
    except HostError:
        error = None
    if not isinstance(error, dict):
        return _no_controller(address, f" ({response.status} {response.reason[:80]})")
    if response.status == 401 and address.path is None and not address.token:
        return UsageError(
            f"the controller at {address} wants a token",
            hint="set BOINCVM_TOKEN, or BOINCVM_TOKEN_FILE; it is in the controller's file `token`",
        )
    return error_of(error)


def _no_controller(address: ControllerAddress, what: str = "") -> BoincvmError:
    return HostError(
        f"what answers at {address} is not a controller{what}", hint="check BOINCVM_CONTROLLER"
    )


def error_of(fields: Json) -> BoincvmError:
    """Return the error that the controller reports for a request or for one machine."""
    table = fields if isinstance(fields, dict) else {}
    try:
        code = ExitCode(table.get("code") or ExitCode.HOST)  # type: ignore[arg-type]
    except ValueError:
        code = ExitCode.HOST
    message, hint = table.get("message"), table.get("hint")
    return BoincvmError(
        _line(message) or "the controller refused, without a reason",
        hint=_line(hint),
        exit_code=code,
    )


def _line(text: Json) -> str:
    shown = text if isinstance(text, str) else ""
    return "".join(character if character.isprintable() else " " for character in shown[:2000])


def _time(text: str | None) -> int | None:
    try:
        return time_of(text)
    except ValueError:
        return None


def _mode(text: str) -> int:
    try:
        return int(text, 8) & 0o777
    except ValueError:
        return 0o644
