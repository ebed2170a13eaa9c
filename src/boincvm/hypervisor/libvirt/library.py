"""The binding `libvirt-python`, imported when it is used, and the thread that serves its events."""

from __future__ import annotations

from threading import Lock, Thread

from boincvm.errors import HypervisorMissingError

INSTALL_HINT = (
    "install it: pip install 'boincvm[libvirt]', which needs Debian's packages libvirt-dev,"
    " pkg-config and gcc; and a daemon: libvirt-daemon, libvirt-daemon-driver-qemu"
)
_lock = Lock()
_is_ready = False


def load() -> None:
    """Import the binding and begin to serve its events. Raises HypervisorMissingError."""
    global _is_ready
    try:
        import libvirt
    except ImportError as error:
        raise HypervisorMissingError(
            f"the Python package libvirt-python cannot be imported: {error}", hint=INSTALL_HINT
        ) from error
    with _lock:
        if not _is_ready:
            # Each error is raised too; without this it would also be written to stderr.
            libvirt.registerErrorHandler(_ignore, None)
            libvirt.virEventRegisterDefaultImpl()
            Thread(target=_serve_events, name="boincvm-libvirt-events", daemon=True).start()
            _is_ready = True


def _ignore(_context: object, _error: object) -> None:
    """Leave it to the exception."""


def _serve_events() -> None:
    import libvirt

    while True:
        libvirt.virEventRunDefaultImpl()
