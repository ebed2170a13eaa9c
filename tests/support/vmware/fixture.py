"""What tests of the VMware driver take: the stand-in's programs, on PATH."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from boincvm.hypervisor.vmware import installation
from boincvm.hypervisor.vmware.installation import Product

_HERE = Path(__file__).parent
_LIMIT = 120.0


class StandIn(NamedTuple):
    """The directory of the stand-in's programs, and of what it keeps."""

    directory: Path

    @property
    def vmrun(self) -> Path:
        return self.directory / "vmrun"

    def __call__(self, verb: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Call `vmrun` as a person would."""
        product = (self.directory / "product").read_text()
        return subprocess.run(
            [self.vmrun, "-T", product, verb, *arguments],
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )

    def running(self) -> list[str]:
        """Return the definitions of the machines that run."""
        return self("list").stdout.splitlines()[1:]

    def end_all(self) -> None:
        for definition in self.running():
            self("stop", definition, "hard")

    def really_boot(self) -> None:
        """Have machines boot from the boot disc, as a computer does; it takes some 10 s."""
        (self.directory / "really_boots").touch()


@contextmanager
def vmware_installed(product: Product = Product.WORKSTATION) -> Iterator[StandIn]:
    """Have the stand-in on PATH in the block; machines that still run then are ended."""
    # Not in the directory of pytest's: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="boincvm-vmware-") as name, ExitStack() as stack:
        directory = Path(name)
        (directory / "running").mkdir()
        (directory / "product").write_text(product)
        for module in ("vmrun.py", "vmx.py"):
            shutil.copy(_HERE / module, directory)
        programs = ["vmrun", "vmplayer", *(["vmware"] if product is not Product.PLAYER else [])]
        for program in programs:
            path = directory / program
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {directory}/vmrun.py "$@"\n')
            path.chmod(0o755)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
        device = directory / "vmmon"
        device.touch()
        patch.setattr(installation, "DEVICE", device)
        stand_in = StandIn(directory)
        stack.callback(stand_in.end_all)
        yield stand_in
