"""What a driver's package declares, which the advisor trusts."""

from collections.abc import Callable
from pathlib import Path

from boincvm.hypervisor.contract import CONTRACT_VERSION, Driver, DriverPackage, MachineSpec
from boincvm.hypervisor.verdict import Ability
from boincvm.job.model import PortForward


def test_the_version_of_the_contract(package: DriverPackage) -> None:
    assert package.contract_version == CONTRACT_VERSION


def test_its_machines_can_do_what_it_says_and_nothing_else(
    package: DriverPackage, driver: Driver, spec_in: Callable[[str], MachineSpec]
) -> None:
    spec = spec_in("machine")._replace(
        network=True, display=True, balloon=True, remote_desktop=True
    )
    spec = spec._replace(forwards=(PortForward(8080, 80),))
    machine = driver.machine(spec)
    card = machine.network
    with_gpu = driver.machine(spec_in("gpu")._replace(gpu="0000:01:00.0"))
    can = {
        Ability.CHECKPOINT: driver.saved_machines is not None,
        Ability.GOLDEN: driver.golden_snapshots is not None,
        Ability.FIRMWARE: driver.has_firmware,
        Ability.NETWORK: card is not None,
        Ability.PORT_FORWARDING: card is not None and card.forwards == spec.forwards,
        Ability.DISPLAY: machine.display is not None,
        Ability.REMOTE_DESKTOP: machine.remote_desktop is not None,
        Ability.SCREENSHOT: machine.screenshots is not None,
        Ability.BALLOON: machine.balloon is not None,
        # Nobody can save a graphics card.
        Ability.GPU: machine.checkpointing is not None and with_gpu.checkpointing is None,
    }
    # The transfer disk exists after the start, and a disk on demand needs a source.
    text = package.abilities.of_machines - {Ability.TRANSFER_DISK, Ability.ON_DEMAND}
    assert text == {ability for ability, is_there in can.items() if is_there}
    assert package.abilities.most_cpus == driver.most_cpus


def test_its_verdict(package: DriverPackage, kernel: Path) -> None:
    verdict = package.assess(lambda: kernel)
    assert verdict.is_usable
    assert verdict.is_final
    assert verdict.version
    assert verdict.abilities.of_machines <= package.abilities.of_machines
