"""XML-RPC with the names that CERN's VM Controller had, so that its old clients work.

http://xmlrpc.com/spec.md; the methods are in xml_rpc_methods.py.
"""

import re
import xmlrpc.client
from xml.parsers.expat import ExpatError

from starlette.requests import Request
from starlette.responses import Response

from boincvm.controller.controller import Controller
from boincvm.controller.serve.bodies import TooLargeError, body, error_table
from boincvm.controller.serve.xml_rpc_methods import Methods
from boincvm.errors import BoincvmError, UsageError

MOST_BYTES = 1 << 20
MOST_DEPTH = 64
_FAULT = 1
_DECLARATION = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_NESTING = re.compile(rb"<(/?)(array|struct)\b")


class XmlRpc:
    """A handler for Starlette's routes."""

    def __init__(self, controller: Controller) -> None:
        self._methods = Methods(controller)

    async def answer(self, request: Request) -> Response:
        """Faults are answers, too; only a body that is too large is refused by HTTP."""
        try:
            text = await self._answer(await body(request, MOST_BYTES))
        except TooLargeError as error:
            return Response(error.message, 413)
        except BoincvmError as error:
            text = _fault(f"{error.message}{'; ' + error.hint if error.hint else ''}")
        except Exception as error:  # the last place where it can be told
            text = _fault(str(error_table(error)["message"]))
        return Response(text, media_type="text/xml")

    async def _answer(self, data: bytes) -> str:
        parameters, method = read_call(data)
        result = await self._methods.call(method, parameters)
        return xmlrpc.client.dumps((result,), methodresponse=True, allow_none=True)  # type: ignore[arg-type]


def read_call(data: bytes) -> tuple[tuple[object, ...], str]:
    """The parameters and the method's name. Raises UsageError."""
    # Declarations could define entities that grow to any size; no call needs one.
    if _DECLARATION.search(data) or data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data:
        raise UsageError("the call has a declaration, or is in no encoding that is taken")
    if _depth(data) > MOST_DEPTH:
        raise UsageError("the call is nested too deeply")
    try:
        parameters, method = xmlrpc.client.loads(data, use_builtin_types=True)
    except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, LookupError) as error:
        raise UsageError(f"the call is no XML-RPC: {error}"[:200]) from error
    except (AttributeError, AssertionError, RecursionError, OverflowError) as error:
        raise UsageError("the call is no XML-RPC") from error
    if not method:
        raise UsageError("the call names no method")
    return parameters, method


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for match in _NESTING.finditer(data):
        depth += -1 if match[1] else 1
        deepest = max(deepest, depth)
    return deepest


def _fault(text: str) -> str:
    return xmlrpc.client.dumps(xmlrpc.client.Fault(_FAULT, text))
