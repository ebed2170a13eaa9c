"""The libvirt driver's definitions, which libvirt's own test hypervisor accepts, and its URIs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import fromstring

import libvirt
import pytest

from boincvm.errors import HypervisorError, HypervisorMissingError, PreferencesError, UsageError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.libvirt.definition import NAMESPACE, Domain, Layer, card, definition
from boincvm.hypervisor.libvirt.uri import VARIABLES, chosen_uri, parse_uri
from boincvm.hypervisor.preferences import preferences_file
from boincvm.hypervisor.registry import find_driver

ODD = Path("/a machine, its place: <odd>=\"yes\"&'no'")
SPEC = MachineSpec(ODD, ODD / "kernel", ODD / "initrd", ODD / "root", memory=256 << 20, cpus=2)


def domain(uri: str = "test:///default", *, is_accelerated: bool = False) -> Domain:
    return Domain(
        id="0badcafe",
        uuid="6a3c4bb2-6a3c-4bb2-9a3c-4bb26a3c4bb2",
        uri=parse_uri(uri),
        is_accelerated=is_accelerated,
        layers=[
            Layer(ODD / "top.qcow2", "qcow2"),
            Layer(ODD / "low.qcow2", "qcow2"),
            Layer(ODD / "root", "raw"),
        ],
        transfer_disk=ODD / "transfer-disk",
        link=ODD / "link",
        console=ODD / "console",
    )


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        SPEC._replace(network=True, balloon=True, durable=True),
        SPEC._replace(kernel=None, initrd=None),
    ],
)
@pytest.mark.parametrize("uri", ["test:///default", "qemu:///session"])
def test_libvirt_takes_them(connection: libvirt.virConnect, spec: MachineSpec, uri: str) -> None:
    """Its schema accepts them, and it returns the same values."""
    text = definition(spec, domain(uri)).replace('type="qemu"', 'type="test"', 1)
    made = connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    assert made.name() == "boincvm-0badcafe"
    output = made.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    assert '"0badcafe"' in output.replace("'", '"')
    given = made.XMLDesc()
    for name in ("top.qcow2", "low.qcow2", "root", "transfer-disk", "link", "console"):
        assert "&lt;odd&gt;=" in given
        assert f"/{name}'" in given or f'/{name}"' in given
    assert made.create() == 0
    made.destroy()
    made.undefine()


def test_a_name_is_only_a_name() -> None:
    text = definition(SPEC, domain())
    assert "<odd>" not in text
    assert text.count("&lt;odd&gt;") >= 8


@pytest.mark.parametrize(
    ("uri", "is_accelerated", "kind"),
    [
        ("qemu:///session", False, "qemu"),
        ("qemu:///session", True, "kvm"),
        ("xen:///system", False, "xen"),
        ("vbox:///session", False, "vbox"),
        ("bhyve:///system", False, "bhyve"),
    ],
)
def test_the_kind_of_domain(uri: str, kind: str, *, is_accelerated: bool) -> None:
    text = definition(SPEC, domain(uri, is_accelerated=is_accelerated))
    assert fromstring(text).get("type") == kind


def test_an_emulated_machine_starts_faster() -> None:
    """libvirt asks for no feature by itself, and one processor's timer is not measured."""
    ways = [
        definition(SPEC._replace(cpus=cpus), domain("qemu:///session", is_accelerated=accelerated))
        for cpus, accelerated in ((1, False), (2, False), (1, True))
    ]
    assert ["nolapic_timer" in text for text in ways] == [True, False, False]
    assert ['del capability="cpu-unavailable' in text for text in ways] == [True, True, False]


def test_a_system_runs_it_as_its_user() -> None:
    assert "<seclabel" in definition(SPEC, domain("qemu:///system"))
    assert "<seclabel" not in definition(SPEC, domain("qemu:///session"))


def test_the_cable() -> None:
    assert 'state="up"' in card(connected=True)
    assert 'state="down"' in card(connected=False)


def test_a_kernel_without_an_initrd() -> None:
    with pytest.raises(HypervisorError, match="no initrd"):
        definition(SPEC._replace(initrd=None), domain())


async def test_without_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(HypervisorMissingError, match="libvirt-python") as caught:
        await find_driver("libvirt").open(None)
    assert "pip install" in caught.value.hint
    for _, poll in find_driver("libvirt").checks:
        assert poll(lambda: None) == []


async def test_without_a_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is named, and nothing is started in its place."""
    uri = f"qemu+unix:///session?socket={tmp_path}/none"
    monkeypatch.setenv("BOINCVM_LIBVIRT_URI", uri)
    verdict = find_driver("libvirt").assess(lambda: None)
    assert "cannot be opened" in verdict.trouble
    assert "daemon" in verdict.remedy
    with pytest.raises(HypervisorError, match="libvirt: "):
        await find_driver("libvirt").open(None)


def prefer(text: str) -> None:
    preferences_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    preferences_file().write_text(text)
    preferences_file().chmod(0o600)


def test_whose_uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    prefer('libvirt = "bhyve:///system"')
    monkeypatch.delenv("BOINCVM_LIBVIRT_URI", raising=False)
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "xen:///system")
    assert chosen_uri().hypervisor == "xen"
    monkeypatch.setenv("BOINCVM_LIBVIRT_URI", "qemu+unix:///session?socket=/run/s")
    assert chosen_uri() == ("qemu+unix:///session?socket=/run/s", "qemu", False)
    monkeypatch.delenv("BOINCVM_LIBVIRT_URI")
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI")
    assert chosen_uri() == ("bhyve:///system", "bhyve", True)
    prefer("")
    assert chosen_uri().hypervisor == "qemu"


@pytest.mark.parametrize("output", ['"qemu+ssh://host/system"', '""', "3"])
def test_preferences_that_lead_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str
) -> None:
    """The error names the file, so a task is postponed and does not fail."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    prefer(f"libvirt = {output}")
    with pytest.raises(PreferencesError) as caught:
        chosen_uri()
    assert str(preferences_file()) in caught.value.message + caught.value.hint


def test_what_doctor_says_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    prefer('libvirt = "test:///default"')
    ((_, poll),) = find_driver("libvirt").checks
    (check,) = poll(lambda: None)
    assert "test:///default (your preferences), version " in check.detail
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    (check,) = poll(lambda: None)
    assert "test:///default (LIBVIRT_DEFAULT_URI), version " in check.detail


@pytest.mark.parametrize(
    "uri", ["qemu+ssh://host/system", "qemu://host/system", "qemu+tcp:///system", "", "a", "q://["]
)
def test_uris_that_lead_elsewhere(uri: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        parse_uri(uri)
