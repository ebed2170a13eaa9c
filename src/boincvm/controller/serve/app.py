"""All paths of the controller's HTTP server in one ASGI application."""

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

from boincvm.controller import operations
from boincvm.controller.controller import Controller
from boincvm.controller.serve.bodies import error_answer, json_object
from boincvm.controller.serve.gate import Gate, Policy, refuse
from boincvm.controller.serve.open_api import document
from boincvm.controller.serve.streams import Streams
from boincvm.controller.serve.xml_rpc import XmlRpc
from boincvm.errors import BoincvmError

NOVNC = Path("/usr/share/novnc")
"""Debian's package novnc."""


def make_app(controller: Controller, policy: Policy) -> ASGIApp:
    """For those whom `policy` lets in."""
    streams = Streams(controller)
    routes: list[BaseRoute] = [
        Route("/api/openapi.json", _open_api, methods=["GET"]),
        Route("/api/events", streams.events, methods=["GET"]),
        WebSocketRoute("/api/events", streams.events_socket),
        Route("/api/commands/{id}/output", streams.output, methods=["GET"]),
        Route("/api/commands/{id}/input", streams.input, methods=["POST"]),
        Route("/api/files", streams.put_file, methods=["PUT"]),
        Route("/api/files", streams.get_file, methods=["GET"]),
        WebSocketRoute("/api/console/{vm}", streams.console),
        Route("/api/{operation}", _operation(controller), methods=["POST"]),
        Route("/RPC2", XmlRpc(controller).answer, methods=["POST"]),
    ]
    if NOVNC.is_dir():
        routes.append(Mount("/novnc", StaticFiles(directory=NOVNC)))
    page = Path(str(resources.files("boincvm.controller"))) / "web"
    routes.append(Mount("/", StaticFiles(directory=page, html=True)))
    handlers = {HTTPException: _no_such, Exception: _failed}
    return Gate(Starlette(routes=routes, exception_handlers=handlers), policy)


def _operation(controller: Controller) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        name = request.path_params["operation"]
        if name not in operations.OPERATIONS:
            return refuse(404, f"there is no operation {name[:64]!r}", "see /api/openapi.json")
        try:
            given = await json_object(request)
            return JSONResponse({"result": await operations.call(controller, name, given)})
        except BoincvmError as error:
            return error_answer(error)

    return run


async def _open_api(_request: Request) -> Response:
    return JSONResponse(document())


async def _no_such(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return refuse(status, f"nothing is here ({status})", "see /api/openapi.json")


async def _failed(_request: Request, error: Exception) -> Response:
    return error_answer(error)
