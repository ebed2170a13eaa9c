"""A BOINC task's side of the talk with its client, in pure Python (docs/boinc-library.md).

Works under BOINC clients as they are; `boincvm.boinc.testing` has a stand-in for one.
"""

from boincvm.boinc.client import Client, Event
from boincvm.boinc.exits import BoincExit
from boincvm.boinc.init_data import InitData, InitDataError, Preferences, Proxy, read_init_data
from boincvm.boinc.lock import RETRY_DELAY, SlotBusyError
from boincvm.boinc.messages import Control, Heartbeat, Status
from boincvm.boinc.segment import SegmentError
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
