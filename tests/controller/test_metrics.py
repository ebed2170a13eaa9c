"""The figures for Prometheus, read by its own parser."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from boincvm import __version__
from boincvm.controller.protocol.guest import Guest
from support.controller.faces import BEARER, Faces

pytestmark = pytest.mark.timeout(60)


async def scraped(faces: Faces) -> dict[tuple[str, ...], float]:
    """Return values by the metric's name and the values of its labels."""
    answer = await faces.ask("GET", "/metrics", BEARER)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_every_machine_and_guest_has_its_figures(faces: Faces) -> None:
    await faces.call("create", name="ours", memory="256M")
    await faces.add_guest("guest")
    found = await scraped(faces)
    assert found["boincvm_build_info", __version__] == 1
    assert found["boincvm_machines", "powered_off"] == 1
    assert found["boincvm_machines", "running"] == 0  # of this host; the other one is a guest
    assert found["boincvm_guests", "present"] == 1
    assert found["boincvm_commands", "open"] == 0
    assert found["boincvm_events_total",] > 0
    assert found["boincvm_disk_free_bytes",] > 0
    assert found["boincvm_host_memory_available_bytes",] > 0
    host = faces.controller.overview.vm("ours")["host"]
    assert found["boincvm_vm_memory_bytes", "ours", str(host)] == 256 << 20
    assert found["boincvm_vm_up", "ours", str(host)] == 0
    (guest,) = (name for name in found if name[:2] == ("boincvm_vm_up", "guest"))
    assert found[guest] == 1


async def test_whatever_a_guest_calls_its_host(faces: Faces) -> None:
    host = 'a "host" \\n of {}'
    faces.controller.hub.registry.hello(Guest("odd", "odd", host=host, instance="1"))
    assert (await scraped(faces))["boincvm_vm_up", "odd", host] == 1


async def test_it_needs_the_token(faces: Faces) -> None:
    assert (await faces.ask("GET", "/metrics")).status == 401


async def test_the_page_has_each_metric(faces: Faces) -> None:
    page = Path(__file__).parents[2] / "docs/running-a-controller.md"
    described = re.findall(r"^\| `(boincvm_\w+)` \|", page.read_text(), re.MULTILINE)
    body = (await faces.ask("GET", "/metrics", BEARER)).body.decode()
    assert sorted(described) == sorted(re.findall(r"^# HELP (\w+) ", body, re.MULTILINE))
