"""The controller's faces for programs and people elsewhere: HTTP, WebSocket, XML-RPC, web page.

    POST /api/OPERATION                a JSON object in, {"result"} or {"error"} out (operations.py)
    GET  /api/openapi.json             all of this, for programs
    GET  /api/events?after=&follow=    events, one a line; or as a WebSocket
    GET  /api/commands/ID/output       its output, a piece a line, at last the command
    POST /api/commands/ID/input?ends=  more of its standard input
    PUT  /api/files?vms=&path=&kind=&mode=     a file, or a tree as tar
    GET  /api/files?vm=&path=
    WebSocket /api/console/VM          a machine's screen and keyboard (RFB)
    POST /RPC2                         XML-RPC with the names of CERN's VM Controller
    GET  /  /novnc/                    the web page, and Debian's noVNC for it

Over the UNIX socket this user and root may do everything. By TCP a token is needed, or a client's
certificate (auth.py); only the files of the page are for everybody.
"""

from boincvm.errors import HostError


def check_extra() -> None:
    """Raises HostError where the packages that this needs are not installed."""
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
