"""Serve the controller over HTTP, WebSocket, XML-RPC and as a web page.

    POST /api/OPERATION                a JSON object in, {"result"} or {"error"} out (operations.py)
    GET  /api/openapi.json             the OpenAPI document of all of this
    GET  /api/events?after=&follow=    events, one per line; or as a WebSocket
    GET  /api/commands/ID/output       its output, a piece per line, and finally the command
    POST /api/commands/ID/input?ends=  more of its standard input
    PUT  /api/files?vms=&path=&kind=&mode=     a file, or a tree as tar
    GET  /api/files?vm=&path=
    WebSocket /api/console/VM          a machine's screen and keyboard (RFB)
    GET  /metrics                      figures for Prometheus
    POST /RPC2                         XML-RPC with the names of CERN's VM Controller
    GET  /  /novnc/                    the web page, and Debian's noVNC for it

Over the UNIX socket this user and root may do everything. Over TCP a token or a client certificate
is needed (auth.py), except for the files of the web page.
"""

from boincvm.errors import HostError


def check_extra() -> None:
    """Raises HostError if the packages that this needs are not installed."""
    try:
        import starlette
        import uvicorn
        import websockets  # noqa: F401
    except ImportError as error:
        raise HostError(
            f"the controller needs the package {error.name}, which is not installed",
            hint="pip install 'boincvm[controller]'",
        ) from error
    del starlette, uvicorn
