"""A connection to libvirt whose blocking calls are made beside the event loop."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from boincvm.errors import HypervisorError
from boincvm.hypervisor.libvirt.definition import ROOT_TARGET
from boincvm.hypervisor.libvirt.library import load
from boincvm.hypervisor.libvirt.uri import Uri
from boincvm.redaction import redact
from boincvm.side_thread import in_side_thread

if TYPE_CHECKING:
    from libvirt import virConnect, virDomain

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_LIMIT = 60.0
"""Seconds within which libvirt answers."""
START_LIMIT = 300.0
"""The same for a start: a daemon's first one tries out all of the host's QEMUs."""
SAVE_LIMIT = 1800.0
"""The same for a save: gigabytes of memory go to a disk."""
_HINT = "`boincvm doctor` tests this host; the daemon's own log may tell more"


class Observer(Protocol):
    """Takes what happens to a domain."""

    def on_lifecycle(self, event: int, detail: int, at: float) -> None: ...

    def on_disk_full(self) -> None: ...

    def on_disk_job(self, status: int) -> None: ...

    def on_close(self) -> None: ...


_ENDED = re.compile(
    r"""(
        Process\ exited\ prior\ to\ exec
        | Child\ quit\ during\ startup\ handshake
        | failed\ to\ connect\ to\ monitor\ socket:\ Connection\ refused
        | process\ exited\ while\ connecting\ to\ monitor
        | closed\ the\ monitor
        | Unable\ to\ (read\ from|write\ to)\ monitor:\ (Connection\ reset\ by\ peer|Broken\ pipe)
        | (QEMU\ monitor\ was\ closed|Error\ while\ processing\ monitor\ IO)
        | [Dd]omain\ is\ (not|no\ longer)\ running
        | guest\ unexpectedly\ quit
        | no\ domain\ with\ matching\ uuid\ '[^']*'(\ \([^)]*\))?
        | process\ \d+:\ No\ such\ process
        )(\ \(vm='[^']*'\))?$""",
    re.VERBOSE,
)
"""How libvirt's message ends if QEMU ended while it started, and wrote nothing about it: what it
was doing with QEMU then, which depends on the moment. What QEMU wrote would follow."""


class LibvirtError(HypervisorError):
    """libvirt has refused a call; `code` is its error's number (virErrorNumber)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, hint=_HINT)
        self.code = code

    @property
    def is_of_ended(self) -> bool:
        """Tell whether the hypervisor's process ended while it started, and did not say why."""
        return _ENDED.search(self.message) is not None


async def call(limit: float, function: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
    """Return what a function of libvirt returns. Raises LibvirtError, HypervisorError."""
    try:
        async with asyncio.timeout(limit):
            return await in_side_thread(lambda: translate(function, *values, **named))
    except TimeoutError:
        raise HypervisorError(f"libvirt has not answered within {limit:g} s", hint=_HINT) from None


def translate(function: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
    """Call a function of libvirt here. Raises LibvirtError."""
    load()
    import libvirt  # it need not be installed

    try:
        return function(*values, **named)
    except libvirt.libvirtError as error:
        # Redact before shortening, or a folder's name would no longer be recognized.
        text = "".join(filter(str.isprintable, redact(str(error))))[:300]
        code = error.get_error_code()
        raise LibvirtError(f"libvirt: {text}", -1 if code is None else code) from error


def connect(uri: Uri) -> "virConnect":
    """Connect to libvirt, beside the event loop. Raises HypervisorMissingError, LibvirtError."""
    load()
    import libvirt

    return translate(libvirt.open, uri.text)


class Connection:
    """A connection of one machine; its domain ends with it where libvirt can do that."""

    def __init__(self, handle: "virConnect") -> None:
        self._handle: virConnect | None = handle
        self._callbacks: list[int] = []
        self.domain: virDomain | None = None

    @classmethod
    async def open(cls, uri: Uri) -> "Connection":
        """Connect. Raises HypervisorMissingError, HypervisorError."""
        return cls(await call(START_LIMIT, connect, uri))

    @property
    def handle(self) -> "virConnect":
        if self._handle is None:
            raise HypervisorError("the connection to libvirt is closed")
        return self._handle

    async def watch(self, identity: str, observer: Observer) -> None:
        """Have what happens to the domain with the UUID `identity` told, in this event loop."""
        import libvirt

        loop = asyncio.get_running_loop()

        def notify(function: Callable[P, None], *values: P.args, **named: P.kwargs) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
                loop.call_soon_threadsafe(lambda: function(*values, **named))

        def lifecycle(
            _connection: object, domain: "virDomain", event: int, detail: int, _opaque: object
        ) -> None:
            if domain.UUIDString() == identity:
                notify(observer.on_lifecycle, event, detail, monotonic())

        def io_error(
            _connection: object,
            domain: "virDomain",
            _path: str,
            _device: str,
            _action: int,
            reason: str,
            _opaque: object,
        ) -> None:
            if reason == "enospc" and domain.UUIDString() == identity:
                notify(observer.on_disk_full)

        def disk_job(
            _connection: object,
            domain: "virDomain",
            disk: str,
            _type: int,
            status: int,
            _opaque: object,
        ) -> None:
            if disk == ROOT_TARGET and domain.UUIDString() == identity:
                notify(observer.on_disk_job, status)

        def closed(_connection: object, _reason: int, _opaque: object) -> None:
            notify(observer.on_close)

        def register(handle: "virConnect") -> list[int]:
            numbers = [
                handle.domainEventRegisterAny(
                    None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None
                )
            ]
            # Those that cannot tell the first of these end a machine whose disk is full in another
            # way; those that cannot tell the second save no machines.
            for event, function in (
                (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, io_error),
                (libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, disk_job),
            ):
                with suppress(libvirt.libvirtError):
                    numbers.append(handle.domainEventRegisterAny(None, event, function, None))
            with suppress(libvirt.libvirtError):
                handle.registerCloseCallback(closed, None)
            return numbers

        self._callbacks = await call(ANSWER_LIMIT, register, self.handle)

    async def close(self) -> None:
        """Close it. Idempotent, and never raises what a lost connection raises."""
        handle, self._handle = self._handle, None
        self.domain = None  # it would keep the connection open
        if handle is not None:
            await call(ANSWER_LIMIT, _close, handle, self._callbacks)


def _close(handle: "virConnect", callbacks: list[int]) -> None:
    import libvirt

    # Each of these fails where the daemon has gone, and the rest must be done all the same.
    for number in callbacks:
        with suppress(libvirt.libvirtError):
            handle.domainEventDeregisterAny(number)
    with suppress(libvirt.libvirtError):
        handle.unregisterCloseCallback()
    with suppress(libvirt.libvirtError):
        handle.close()
