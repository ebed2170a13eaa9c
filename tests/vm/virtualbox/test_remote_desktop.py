"""The remote desktop of a machine of the real VirtualBox (support/virtualbox/root.py)."""

import hashlib
import re

import pytest

from boincvm.errors import (
    HypervisorError,
    HypervisorMissingError,
)
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.virtualbox import remote_desktop
from support.virtualbox.golden import WITH_A_BOOT
from support.virtualbox.machines import MakeMachine, reported

pytestmark = pytest.mark.timeout(WITH_A_BOOT)


async def test_a_remote_desktop_needs_the_extension_pack(
    machine: MakeMachine, spec: MachineSpec
) -> None:
    """The VNC module of Debian's package is none that is used: it listens on all addresses."""
    one = machine(remote_desktop=True)
    with pytest.raises(HypervisorMissingError, match="no remote desktop without Oracle's") as at:
        await one.create()
    assert "install the extension pack" in at.value.hint
    plain = machine()
    await plain.create()
    assert plain.remote_desktop is None
    assert (await reported(plain))["vrde"] == "off"


async def test_a_remote_desktop(machine: MakeMachine, extension_pack: None) -> None:
    """As defined it is on 127.0.0.1 only, for one client with a password, of which VirtualBox has
    only the hash."""
    one = machine(remote_desktop=True)
    await one.create()
    table = await reported(one)
    assert {name: table[name] for name in table if name.startswith("vrde")} == {
        "vrde": "on",
        "vrdeaddress": "127.0.0.1",
        "vrdeports": "33890-33989",
        "vrdeauthtype": "external",
        "vrdeport": "-1",
        **dict.fromkeys(("vrdemulticon", "vrdereusecon", "vrdevideochannel"), "off"),
        **{name: table[name] for name in table if name.startswith("vrdeproperty")},
    }
    assert one.home is not None
    settings = (one.home.machine_directory / one.home.name / f"{one.home.name}.vbox").read_text()
    assert 'authLibrary="VBoxAuthSimple"' in settings
    (digest,) = re.findall(r'"VBoxAuthSimple/users/boincvm" value="([0-9a-f]{64})"', settings)
    password = one._password
    assert digest == hashlib.sha256(password.encode()).hexdigest()
    assert len(password) >= 16
    assert password not in settings
    assert one.remote_desktop is not None
    assert one.remote_desktop.access is None  # until it runs


async def test_the_address_of_a_remote_desktop(
    machine: MakeMachine, extension_pack: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known as soon as the machine runs, and no longer. Oracle's server is not here; its port
    is made up."""
    monkeypatch.setattr(remote_desktop, "bound_port", lambda _: 33891)
    one = machine(remote_desktop=True)
    (await one.start()).close()
    assert one.remote_desktop is not None
    access = one.remote_desktop.access
    assert access == ("RDP", "127.0.0.1", 33891, "boincvm", one._password)
    await one.stop()
    assert one.remote_desktop.access is None


async def test_a_remote_desktop_that_does_not_open(
    machine: MakeMachine, extension_pack: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told an address that leads nowhere."""
    monkeypatch.setattr("boincvm.hypervisor.virtualbox.machine._DESKTOP_LIMIT", 2.0)
    one = machine(remote_desktop=True)
    with pytest.raises(HypervisorError, match="does not open the machine's remote desktop"):
        await one.start()
    assert one.remote_desktop is not None
    assert one.remote_desktop.access is None
