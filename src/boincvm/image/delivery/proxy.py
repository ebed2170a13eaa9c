"""Which proxy leads to a web server, by the rules of Python's standard library.

That is what http_proxy, https_proxy and no_proxy say in the environment, or else the system's
settings on Windows and macOS. This computer itself is never reached by a proxy.
"""

import base64
import ipaddress
import urllib.request
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from boincvm.errors import UsageError

_PORT = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy for HTTP, which also connects to servers of HTTPS."""

    host: str
    port: int
    headers: dict[str, str]
    """Its own, with the name and the password if it wants some."""

    @property
    def text(self) -> str:
        """Return its address for a message, without a password."""
        return f"the proxy {self.host}:{self.port}"


def proxy_for(parts: SplitResult) -> Proxy | None:
    """Return the proxy for the server of a URL; None: it is reached directly.

    Raises UsageError for a proxy that boincvm cannot use.
    """
    given = urllib.request.getproxies().get(parts.scheme, "")
    if not given or _is_here(parts.hostname or "") or urllib.request.proxy_bypass(parts.netloc):
        return None
    try:
        found = urlsplit(given if "//" in given else f"//{given}")
        host, port = found.hostname, found.port or _PORT
    except ValueError:
        found, host, port = urlsplit(""), None, _PORT
    if not host or found.scheme not in ("", "http"):
        raise UsageError(
            f"{parts.scheme}_proxy names no proxy that boincvm can use: only http:// is known",
            hint=f"change it, or name {parts.hostname} in no_proxy",
        )
    headers = {}
    if found.username is not None:
        login = f"{unquote(found.username)}:{unquote(found.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return Proxy(host, port, headers)


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback
