"""The app's side of the protocol between a BOINC task and its client, in pure Python.

Described in docs/boinc-library.md. Works with unmodified BOINC clients; `boincvm.boinc.testing` has
a stand-in for one.
"""

from boincvm.boinc.channels import SegmentError
from boincvm.boinc.client import Client, Event
from boincvm.boinc.exits import BoincExit
from boincvm.boinc.init_data import InitData, InitDataError, Preferences, Proxy, read_init_data
from boincvm.boinc.lock import RETRY_DELAY, SlotBusyError
from boincvm.boinc.messages import Control, Heartbeat, Status
from boincvm.boinc.soft_link import SoftLinkError, resolve

__all__ = [
    "RETRY_DELAY",
    "BoincExit",
    "Client",
    "Control",
    "Event",
    "Heartbeat",
    "InitData",
    "InitDataError",
    "Preferences",
    "Proxy",
    "SegmentError",
    "SlotBusyError",
    "SoftLinkError",
    "Status",
    "read_init_data",
    "resolve",
]
