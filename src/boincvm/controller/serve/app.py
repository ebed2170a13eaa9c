"""The ASGI application with all paths of the controller's HTTP server."""

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from boincvm.controller import operations
from boincvm.controller.controller import Controller
from boincvm.controller.serve.auth import Authentication, Policy, refuse
from boincvm.controller.serve.bodies import answer_error, json_object
from boincvm.controller.serve.metrics import CONTENT_TYPE, metrics
from boincvm.controller.serve.open_api import document
from boincvm.controller.serve.shutdown import Shutdown
from boincvm.controller.serve.streams import Streams
from boincvm.controller.serve.xml_rpc import XmlRpc
from boincvm.errors import BoincvmError

NOVNC = Path("/usr/share/novnc")
"""Where Debian's package novnc installs it."""


def make_app(controller: Controller, policy: Policy, shutdown: Shutdown | None = None) -> ASGIApp:
    """Return the application for callers that `policy` lets in; `shutdown` ends its streams."""
    streams = Streams(controller, shutdown or Shutdown())
    routes: list[BaseRoute] = [
        Route("/api/openapi.json", _open_api, methods=["GET"]),
        Route("/api/events", streams.events, methods=["GET"]),
        WebSocketRoute("/api/events", streams.events_socket),
        # An id is chosen by a client and may contain a slash.
        Route("/api/commands/{id:path}/output", streams.output, methods=["GET"]),
        Route("/api/commands/{id:path}/input", streams.input, methods=["POST"]),
        Route("/api/files", streams.put_file, methods=["PUT"]),
        Route("/api/files", streams.get_file, methods=["GET"]),
        WebSocketRoute("/api/console/{vm}", streams.console),
        Route("/api/exec", streams.exec, methods=["POST"]),
        Route("/api/{operation}", _operation(controller), methods=["POST"]),
        Route("/api/{rest:path}", _nothing),
        Route("/metrics", _metrics(controller), methods=["GET"]),
        Route("/RPC2", XmlRpc(controller, policy.shared).answer, methods=["POST"]),
        WebSocketRoute("/{rest:path}", _no_socket),
    ]
    if NOVNC.is_dir():
        routes.append(Mount("/novnc", StaticFiles(directory=NOVNC)))
    page = Path(str(resources.files("boincvm.controller"))) / "web"
    routes.append(Mount("/", StaticFiles(directory=page, html=True)))
    handlers = {HTTPException: _no_such, BoincvmError: answer_error, Exception: answer_error}
    return Authentication(Starlette(routes=routes, exception_handlers=handlers), policy)


def _operation(controller: Controller) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        name = request.path_params["operation"]
        if name not in operations.OPERATIONS:
            return refuse(404, f"there is no operation {name[:64]!r}", "see /api/openapi.json")
        given = await json_object(request)
        return JSONResponse({"result": await operations.call(controller, name, given)})

    return run


def _metrics(controller: Controller) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:
        return Response(metrics(controller), media_type=CONTENT_TYPE)

    return answer


async def _open_api(_request: Request) -> Response:
    return JSONResponse(document())


async def _nothing(_request: Request) -> Response:
    return refuse(404, "nothing is here (404)", "see /api/openapi.json")


async def _no_socket(socket: WebSocket) -> None:
    await socket.close(1008, "nothing is here")


async def _no_such(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    answer = refuse(status, f"nothing is here ({status})", "see /api/openapi.json")
    if isinstance(error, HTTPException):
        answer.headers.update(error.headers or {})  # such as the allowed methods
    return answer
