"""XML-RPC with the names that CERN's VM Controller had, so that its old clients work.

http://xmlrpc.com/spec.md; the methods are in xml_rpc_methods.py.
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
        """Faults are answers, too; only a body that is too large is refused by HTTP."""
        try:
            text = await self._answer(await body(request, MOST_BYTES))
        except BodyError as error:
            return Response(error.message, error.status, {"connection": "close"})
        except BoincvmError as error:
            text = _fault(f"{error.message}{'; ' + error.hint if error.hint else ''}")
        except Exception as error:  # the last place where it can be told
            text = _fault(str(error_table(error)["message"]))
        return Response(text, media_type="text/xml")

    async def _answer(self, data: bytes) -> str:
        parameters, method = read_call(data)
        return _write((_plain(await self._methods.call(method, parameters)),))


def read_call(data: bytes) -> tuple[tuple[object, ...], str]:
    """The parameters and the method's name. Raises UsageError."""
    # Declarations could define entities that grow to any size; no call needs one.
    if _DECLARATION.search(data) or b"\0" in data:
        raise UsageError("the call has a declaration, or is in no encoding that is taken")
    reader = _Reader()
    try:
        return reader.read(data)
    except UsageError:
        raise
    except Exception as error:  # Unmarshaller raises whatever its steps do
        raise UsageError(f"the call is no XML-RPC: {error}"[:200]) from error


class _Reader:
    """Python's own, with limits."""

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
    """What XML-RPC has no way to say becomes what is nearest: it has whole numbers of 32 bits,
    and XML has no control characters."""
    if isinstance(value, str):
        return _NO_XML.sub("\ufffd", value)
    if isinstance(value, int) and not -_LARGEST_WHOLE <= value <= _LARGEST_WHOLE:
        return float(value)
    if isinstance(value, dict):
        return {_plain(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _write(values: tuple[object]) -> str:
    text = xmlrpc.client.dumps(values, methodresponse=True, allow_none=True)  # type: ignore[arg-type]
    return text.replace("\r", "&#13;")  # a bare one is read as a line's end


def _fault(text: str) -> str:
    return xmlrpc.client.dumps(xmlrpc.client.Fault(_FAULT, str(_plain(text))))
