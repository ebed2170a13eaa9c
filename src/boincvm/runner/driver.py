"""The driver of machines that somebody starts by hand, opened once there is an event loop."""

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.choice import Choice, advise, choose_for_run
from boincvm.hypervisor.contract import Driver
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.registry import open_driver
from boincvm.image.store import Image
from boincvm.job.model import Job, MachineTask
from boincvm.machine.admission import check_fits_host


async def open_driver_for(
    job: Job[MachineTask], image: Image, option: str | None
) -> tuple[Choice, Driver]:
    """Choose the driver of the machines of `job` as `boincvm run` does, and open it.

    `option`: the one that the command line asks for. Raises HypervisorMissingError, UsageError,
    NotEnoughRoomError, HypervisorError, HostError, OSError.
    """
    shape, request = job.machine, job.driver_request()
    check_fits_host(shape.memory, shape.cpus)
    architecture = image.architecture
    needs = Needs(request.checkpoint, shape.cpus, shape.network, architecture=architecture)
    kernel = image.kernel
    choice = choose_for_run(option, request, needs, lambda: kernel)
    try:
        return choice, await open_driver(choice.driver, kernel)
    except HypervisorMissingError:
        if choice.reason:  # it was asked for, or is what works best here
            raise
        choice = advise(needs, lambda: kernel)
        return choice, await open_driver(choice.driver, kernel)
