"""What boincvm uses of libvirt-python, which has no types of its own."""

from collections.abc import Callable

VIR_DOMAIN_AFFECT_LIVE: int
VIR_DOMAIN_BLOCK_COPY_REUSE_EXT: int
VIR_DOMAIN_BLOCK_COPY_SHALLOW: int
VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT: int
VIR_DOMAIN_BLOCK_JOB_FAILED: int
VIR_DOMAIN_BLOCK_JOB_READY: int
VIR_DOMAIN_DEFINE_VALIDATE: int
VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2: int
VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: int
VIR_DOMAIN_EVENT_ID_LIFECYCLE: int
VIR_DOMAIN_EVENT_RESUMED: int
VIR_DOMAIN_EVENT_SHUTDOWN: int
VIR_DOMAIN_EVENT_SHUTDOWN_HOST: int
VIR_DOMAIN_EVENT_STOPPED: int
VIR_DOMAIN_EVENT_STOPPED_DESTROYED: int
VIR_DOMAIN_EVENT_STOPPED_FAILED: int
VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: int
VIR_DOMAIN_EVENT_SUSPENDED: int
VIR_DOMAIN_METADATA_ELEMENT: int
VIR_DOMAIN_PAUSED: int
VIR_DOMAIN_RUNNING: int
VIR_DOMAIN_SAVE_PAUSED: int
VIR_DOMAIN_SAVE_RUNNING: int
VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC: int
VIR_DOMAIN_SNAPSHOT_CREATE_LIVE: int
VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA: int
VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT: int
VIR_DOMAIN_START_AUTODESTROY: int
VIR_ERR_NO_DOMAIN: int
VIR_ERR_NO_DOMAIN_METADATA: int
VIR_ERR_OPERATION_INVALID: int

class libvirtError(Exception):  # noqa: N801 - its name
    def get_error_code(self) -> int | None: ...

class virDomain:  # noqa: N801
    def UUIDString(self) -> str: ...  # noqa: N802
    def XMLDesc(self, flags: int = 0) -> str: ...  # noqa: N802
    def blockCopy(  # noqa: N802
        self, disk: str, destxml: str, params: None = None, flags: int = 0
    ) -> int: ...
    def blockJobAbort(self, disk: str, flags: int = 0) -> int: ...  # noqa: N802
    def name(self) -> str: ...
    def create(self) -> int: ...
    def destroy(self) -> int: ...
    def undefine(self) -> int: ...
    def isActive(self) -> int: ...  # noqa: N802
    def memoryStats(self) -> dict[str, int]: ...  # noqa: N802
    def metadata(self, type: int, uri: str | None, flags: int = 0) -> str: ...  # noqa: A002
    def resume(self) -> int: ...
    def saveFlags(self, to: str, dxml: str | None = None, flags: int = 0) -> int: ...  # noqa: N802
    def setMemoryFlags(self, memory: int = 0, flags: int = 0) -> int: ...  # noqa: N802
    def setMemoryStatsPeriod(self, period: int, flags: int = 0) -> int: ...  # noqa: N802
    def snapshotCreateXML(self, xmlDesc: str, flags: int = 0) -> object: ...  # noqa: N802, N803
    def state(self, flags: int = 0) -> list[int]: ...
    def suspend(self) -> int: ...
    def updateDeviceFlags(self, xml: str, flags: int = 0) -> int: ...  # noqa: N802

class virConnect:  # noqa: N801
    def close(self) -> int: ...
    def createXML(self, xmlDesc: str, flags: int = 0) -> virDomain: ...  # noqa: N802, N803
    def defineXMLFlags(self, xml: str, flags: int = 0) -> virDomain: ...  # noqa: N802
    def domainEventDeregisterAny(self, callbackID: int) -> int: ...  # noqa: N802, N803
    def domainEventRegisterAny(  # noqa: N802
        self,
        dom: virDomain | None,
        eventID: int,  # noqa: N803
        cb: Callable[..., None],
        opaque: object,
    ) -> int: ...
    def getLibVersion(self) -> int: ...  # noqa: N802
    def getVersion(self) -> int: ...  # noqa: N802
    def isAlive(self) -> int: ...  # noqa: N802
    def listAllDomains(self, flags: int = 0) -> list[virDomain]: ...  # noqa: N802
    def lookupByUUIDString(self, uuidstr: str) -> virDomain: ...  # noqa: N802
    def lookupByName(self, name: str) -> virDomain: ...  # noqa: N802
    def restoreFlags(self, frm: str, dxml: str | None = None, flags: int = 0) -> int: ...  # noqa: N802
    def registerCloseCallback(  # noqa: N802
        self, cb: Callable[[virConnect, int, object], None], opaque: object
    ) -> int: ...
    def unregisterCloseCallback(self) -> int: ...  # noqa: N802

def open(name: str | None = None) -> virConnect: ...  # noqa: A001
def registerErrorHandler(f: Callable[[object, object], None], ctx: object) -> int: ...  # noqa: N802
def virEventRegisterDefaultImpl() -> int: ...  # noqa: N802
def virEventRunDefaultImpl() -> int: ...  # noqa: N802
