"""Serve XML-RPC with the names of CERN's VM Controller, so that its old clients work.

See http://xmlrpc.com/spec.md; the methods are in xml_rpc_methods.py.
"""

import re
import xmlrpc.client
from pathlib import Path
from xml.parsers import expat

from starlette.requests import Request
from starlette.responses import Response

from boincvm.controller.controller import Controller
from boincvm.controller.serve.bodies import BodyError, body, error_table
from boincvm.controller.serve.xml_rpc_methods import Methods
from boincvm.errors import BoincvmError, UsageError

MOST_BYTES = 1 << 20
MOST_DEPTH = 128
MOST_ELEMENTS = 50_000
_FAULT = 1
_DECLARATION = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LARGEST_WHOLE = (1 << 31) - 1


class XmlRpc:
    """A handler for Starlette's routes."""

    def __init__(self, controller: Controller, shared: Path | None) -> None:
        self._methods = Methods(controller, shared)

    async def answer(self, request: Request) -> Response:
        """Answer a call, with a fault for an error; only a bad body gets an HTTP error."""
        try:
            text = await self._answer(await body(request, MOST_BYTES))
        except BodyError as error:
            return Response(error.message, error.status, {"connection": "close"})
        except BoincvmError as error:
            text = _fault(f"{error.message}{'; ' + error.hint if error.hint else ''}")
        except Exception as error:  # the last place where it can be reported
            text = _fault(str(error_table(error)["message"]))
        return Response(text, media_type="text/xml")

    async def _answer(self, data: bytes) -> str:
        parameters, method = read_call(data)
        return _write((_plain(await self._methods.call(method, parameters)),))


def read_call(data: bytes) -> tuple[tuple[object, ...], str]:
    """Return the parameters and the method's name of a call. Raises UsageError."""
    # Declarations could define entities that grow to any size; no call needs one.
    if _DECLARATION.search(data) or b"\0" in data:
        raise UsageError("the call has a declaration, or is not in an accepted encoding")
    reader = _Reader()
    try:
        return reader.read(data)
    except UsageError:
        raise
    except Exception as error:  # Unmarshaller raises errors of any class
        raise UsageError(f"the call is not XML-RPC: {error}"[:200]) from error


class _Reader:
    """Python's own XML-RPC reader, with limits."""

    def __init__(self) -> None:
        self._target = xmlrpc.client.Unmarshaller(use_builtin_types=True)
        self._depth = self._count = 0

    def read(self, data: bytes) -> tuple[tuple[object, ...], str]:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._target.data
        self._target.xml(None, None)  # type: ignore[arg-type]  # expat decodes
        parser.Parse(data, True)
        parameters = self._target.close()
        method = self._target.getmethodname()
        if not method:
            raise UsageError("the call names no method")
        return parameters, method

    def _refuse(self, *_: object) -> None:
        raise UsageError("the call has a declaration")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count += 1
        if self._depth > MOST_DEPTH or self._count > MOST_ELEMENTS:
            raise UsageError("the call is nested too deeply, or has too many values")
        self._target.start(tag, attributes)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._target.end(tag)


def _plain(value: object) -> object:
    """Return the nearest value that XML-RPC can express.

    Its integers have 32 bits, and XML has no control characters.
    """
    if isinstance(value, str):
        return _NO_XML.sub("\ufffd", value)
    if isinstance(value, int) and not -_LARGEST_WHOLE <= value <= _LARGEST_WHOLE:
        return float(value)
    if isinstance(value, dict):
        return {_plain(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _write(values: tuple[object]) -> str:
    text = xmlrpc.client.dumps(values, methodresponse=True, allow_none=True)  # type: ignore[arg-type]
    return text.replace("\r", "&#13;")  # a bare one would be read as a line feed


def _fault(text: str) -> str:
    return xmlrpc.client.dumps(xmlrpc.client.Fault(_FAULT, str(_plain(text))))
