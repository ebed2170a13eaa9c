"""The page for a project's server has what the example has."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from boincvm.machine.host_capacity import HYPERVISOR_MEMORY

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/boinc-server.md").read_text()
EXAMPLE = ROOT / "examples/boinc-ecm"


def test_the_plan_class_is_the_example_s() -> None:
    block = re.search(r"```xml\n(<plan_classes>.*?)```", PAGE, re.DOTALL)
    assert block is not None
    shown = ElementTree.canonicalize(block[1], strip_text=True)
    shipped = (EXAMPLE / "plan_class_spec.xml").read_text()
    assert shown == ElementTree.canonicalize(shipped, strip_text=True)
    name = ElementTree.fromstring(shipped).findtext("plan_class/name", "")
    assert f"x86_64-pc-linux-gnu__{name}/" in PAGE
    assert not {"vbox", "docker", "wsl"} & {name}


def test_the_files_are_the_example_s() -> None:
    version = ElementTree.parse(EXAMPLE / "app/version.xml").getroot()
    for file in version.iter("file"):
        physical, logical = file.findtext("physical_name", ""), file.findtext("logical_name", "")
        assert f"| `{physical}`" in PAGE
        assert not logical or f"| `{logical}` |" in PAGE


def test_the_bounds_are_the_example_s() -> None:
    job = ElementTree.parse(EXAMPLE / "app/ecm_job_1.0.xml").getroot()
    assert job.findtext("task/memory_mb") == "512"
    memory = (512 << 20) + HYPERVISOR_MEMORY  # what the wrapper asks for
    disk = (2 * 512 << 20) + (1 << 30)
    assert f"{memory:,} for the example's `memory_mb` of 512" in PAGE
    assert f"{disk:,} for the example, half of it data" in PAGE
    into = ElementTree.parse(EXAMPLE / "templates/ecm_in").getroot()
    bounds = [into.findtext(f"workunit/rsc_{name}_bound") for name in ("memory", "disk")]
    assert bounds == [str(memory), str(disk)]
