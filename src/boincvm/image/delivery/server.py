"""Read files from a web server that may be slow, broken or hostile.

Only http and https, through a proxy where there is one (proxy.py); a redirect leads to the same
scheme or to https. Each answer has to begin and go on within limits, and has exactly the bytes that
were asked for.
"""

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Timer
from time import monotonic
from urllib.parse import SplitResult, urljoin, urlsplit

from boincvm.errors import HostError, ImageMissingError, UsageError
from boincvm.host.authorities import system_security
from boincvm.image.delivery.proxy import Proxy, proxy_for

_PIECE = 1 << 17
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_TROUBLE = 500
"""The least status of an answer by which a server says that the fault is its own."""
_PORTS = {"http": 80, "https": 443}
_NO_TUNNEL = "Tunnel connection failed"
"""How http.client's error begins when a proxy does not connect to a server."""


class BrokenOffError(HostError):
    """The server was there, and the connection broke off: asking again may help."""


class UnexpectedAnswerError(HostError):
    """The server answers, but not with what was asked for: another file may help."""

    is_passing = False
    """Whether the server says that it has trouble of its own."""


class RangesIgnoredError(UnexpectedAnswerError):
    """The server sends whole files only."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for."""

    stall: float = 30.0
    """Seconds without a byte."""
    answer: float = 60.0
    """Seconds until an answer's headers are complete."""
    window: float = 60.0
    """Seconds over which the speed is measured."""
    least_rate: int = 1024
    """Bytes a second that arrive at least."""


PATIENCE = Patience()


def check_url(url: str) -> str:
    """Return the address of a directory without a slash at its end. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, user = parts.hostname, parts.username
        _ = parts.port, (host or "").encode("idna")  # as it is before it is looked up
    except ValueError:
        host = user = None
    if (
        not host
        or user is not None
        or parts.scheme not in _PORTS
        or parts.query
        or parts.fragment
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise UsageError(
            f"{url!r} is not an address of images",
            hint="give a URL like https://example.org/images, without a name or a password",
        )
    return url.rstrip("/")


class Server:
    """The files beneath the address `url`."""

    def __init__(self, url: str, patience: Patience = PATIENCE) -> None:
        self.url = check_url(url)
        self.received = 0
        """Bytes of content so far."""
        self._patience = patience
        self._connection: http.client.HTTPConnection | None = None
        self._is_aborted = False
        self._peer = ("", "")
        self._proxy: Proxy | None = None
        """Through which the connection leads."""

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def is_behind_proxy(self) -> bool:
        """Tell whether a proxy leads to it. Raises UsageError for one that cannot be used."""
        return proxy_for(urlsplit(self.url)) is not None

    def abort(self) -> None:
        """End what another thread waits for, which gets an error; the server is used no more."""
        self._is_aborted = True
        connection = self._connection
        if connection is not None:
            _cut(connection, Event())

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file of at most `most` bytes. Raises BoincvmError."""
        response = self._request(name, {})
        length = response.length
        if length is None or length > most:
            self.close()
            raise HostError(f"{self.url}/{name} has no size, or too many bytes")
        return b"".join(self._body(response, name, length))

    def pieces(self, name: str, begin: int, end: int, size: int) -> Iterator[bytes]:
        """Read the bytes from `begin` to `end` of a file of `size` bytes.

        Raises BrokenOffError, UnexpectedAnswerError, ImageMissingError, HostError.
        """
        is_whole = begin == 0 and end == size
        headers = {} if is_whole else {"Range": f"bytes={begin}-{end - 1}"}
        response = self._request(name, headers)
        if not is_whole and response.status == 200:
            self.close()
            raise RangesIgnoredError(f"{self.url} sends whole files only")
        content_range = response.headers.get("Content-Range", "")
        right = is_whole or content_range in (
            f"bytes {begin}-{end - 1}/{total}" for total in (size, "*")
        )
        if response.status != (200 if is_whole else 206) or not right:
            self.close()
            raise UnexpectedAnswerError(
                f"{self.url}/{name}: the server answers with other bytes than asked"
            )
        if response.length != end - begin:
            self.close()
            raise UnexpectedAnswerError(
                f"{self.url}/{name} has another size than its index says",
                hint="it may just have been replaced: try again",
            )
        yield from self._body(response, name, end - begin)

    def _body(self, response: http.client.HTTPResponse, name: str, length: int) -> Iterator[bytes]:
        begin, count = monotonic(), 0
        complete = False
        try:
            while length:
                piece = response.read1(min(length, _PIECE))
                if not piece:
                    raise self._broken(name, "the server closed the connection")
                length -= len(piece)
                self.received += len(piece)
                count += len(piece)
                yield piece
                seconds = monotonic() - begin
                if seconds >= self._patience.window:
                    if count < seconds * self._patience.least_rate:
                        raise HostError(
                            f"{self.url} is too slow: {count} bytes in {seconds:.0f} s",
                            hint="try again later; what has arrived is kept",
                        )
                    begin, count = monotonic(), 0
            response.close()  # lets the connection be used again
            complete = True
        except TimeoutError as error:
            raise self._silent() from error
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(name, str(error)) from error
        finally:
            if not complete:
                self.close()

    def _request(self, name: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        url = f"{self.url}/{name}"
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._answer(url, headers)
            if response.status in _REDIRECTS:
                self.close()
                url = self._redirected(url, response.headers.get("Location", ""))
                continue
            if response.status in (404, 410):
                self.close()
                raise ImageMissingError(
                    f"{self.url} has no {name}",
                    hint="check the address; if images were just published there, try again",
                )
            if response.status == 407:
                self.close()
                raise HostError(
                    f"{self.url} cannot be reached: the proxy wants a name and a password",
                    hint="put them into the variable: http_proxy=http://NAME:PASSWORD@HOST:PORT",
                )
            if response.status not in (200, 206):
                self.close()
                error = UnexpectedAnswerError(
                    f"{self.url}/{name}: the server answers with {response.status}"
                )
                error.is_passing = response.status >= _TROUBLE
                raise error
            return response
        raise HostError(f"{self.url}/{name} is redirected for ever")

    def _redirected(self, url: str, location: str) -> str:
        scheme = urlsplit(url).scheme
        try:
            found = urljoin(url, location)
            check_url(found.partition("?")[0])
        except (UsageError, ValueError):
            found = ""
        if urlsplit(found).scheme not in (scheme, "https") or not found.isascii():
            raise HostError(
                f"{url} is redirected to {location[:200]!r}, where boincvm does not follow"
            )
        return found

    def _answer(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        connection = self._connect(parts)
        proxy = self._proxy
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if proxy is not None and parts.scheme == "http":  # which a tunnel hides from the proxy
            headers = {**headers, **proxy.headers}
            target = f"http://{parts.netloc}{target}"
        is_late = Event()
        limit = Timer(self._patience.answer, _cut, [connection, is_late])
        limit.daemon = True
        limit.start()
        try:
            connection.request(
                "GET",
                target,
                headers={"User-Agent": "boincvm", "Accept-Encoding": "identity", **headers},
            )
            response = connection.getresponse()
            if is_late.is_set():
                raise TimeoutError  # it may be half an answer, which `_cut` has ended
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise HostError(
                f"the certificate of {self.url} is not trusted: {error.verify_message}",
                hint="check this computer's clock and the address",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if isinstance(error, TimeoutError) or is_late.is_set():
                raise self._silent() from error
            by = "" if proxy is None else f" by {proxy.text}"
            is_refused = isinstance(error, ConnectionRefusedError | socket.gaierror)
            if is_refused or str(error).startswith(_NO_TUNNEL):
                where = "the address" if proxy is None else f"{parts.scheme}_proxy"
                raise HostError(
                    f"{self.url} cannot be reached{by}: {getattr(error, 'strerror', '') or error}",
                    hint=f"check the network and {where}",
                ) from error
            raise self._broken(target.rpartition("/")[2], str(error)) from error
        finally:
            limit.cancel()
        return response

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        if self._is_aborted:
            raise HostError(f"{self.url} is no longer needed")
        peer = (parts.scheme, parts.netloc)
        if self._connection is None or self._peer != peer:
            self.close()
            self._proxy = proxy = proxy_for(parts)
            server = parts.hostname or "", parts.port or _PORTS[parts.scheme]
            host, port = server if proxy is None else (proxy.host, proxy.port)
            stall = self._patience.stall
            if parts.scheme == "https":
                security = system_security()
                security.set_alpn_protocols(["http/1.1"])
                self._connection = http.client.HTTPSConnection(
                    host, port, timeout=stall, context=security
                )
                if proxy is not None:
                    self._connection.set_tunnel(*server, headers=proxy.headers)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=stall)
            self._peer = peer
        return self._connection

    def _silent(self) -> HostError:
        return HostError(
            f"{self.url} does not answer in time",
            hint="try again later; what has arrived is kept",
        )

    def _broken(self, name: str, why: str) -> BrokenOffError:
        return BrokenOffError(
            f"{self.url}: the connection broke off within {name}: {why}"[:500],
            hint="try again; what has arrived is kept",
        )


def _cut(connection: http.client.HTTPConnection, is_late: Event) -> None:
    """End whatever waits for the connection, and say so."""
    is_late.set()
    stream: socket.socket | None = connection.sock
    if stream is not None:
        with suppress(OSError):
            # The plain socket's own: TLS would say goodbye first.
            socket.socket.shutdown(stream, socket.SHUT_RDWR)
