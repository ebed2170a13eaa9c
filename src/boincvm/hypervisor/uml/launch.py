"""A User-mode Linux that runs: its disks, processes, network and the processor it is pinned to.

Starting one needs no event loop (prestarted.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.files import give_to, open_descriptor, remove_if_empty
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.uml.command import kernel_arguments
from boincvm.hypervisor.uml.disks import Disks
from boincvm.hypervisor.uml.kernel import UmlKernel
from boincvm.hypervisor.uml.network import Network
from boincvm.hypervisor.uml.process import UmlProcess
from boincvm.hypervisor.uml.sandbox import make_sandbox, take_processor


class Launched:
    """A machine's processes, which run once it is constructed, and what they use."""

    def __init__(self, spec: MachineSpec, kernel: UmlKernel, disks: Disks) -> None:
        """Start the kernel on `disks`, which it takes over if it starts.

        Raises HypervisorError, HypervisorMissingError, OSError.
        """
        if spec.initrd is None:
            raise HypervisorError("a User-mode Linux has no firmware, and was given no initrd")
        self.disks = disks
        self.network: Network | None = None
        self._processor = take_processor()
        try:
            self.network = Network(spec.forwards, spec.directory) if spec.network else None
            card = self.network.card.fileno() if self.network is not None else None
            self.process = _start(spec, spec.initrd, kernel, disks, self._processor.number, card)
            if self.network is not None:
                self.network.card.close()
        except BaseException:
            self._end_network()
            self._processor.close()
            raise
        if spec.ephemeral:
            remove_if_empty(spec.directory)

    def close(self) -> None:
        """End the network; release disks and processor. The kernel has ended. Idempotent."""
        self._end_network()
        self.disks.close()
        self._processor.close()
        self._processor = self._processor._replace(lock=-1)

    def _end_network(self) -> None:
        if self.network is not None:
            self.network.end()


def _start(
    spec: MachineSpec,
    initrd_path: Path,
    kernel: UmlKernel,
    disks: Disks,
    processor: int | None,
    card: int | None,
) -> UmlProcess:
    program = kernel.open()
    try:
        initrd = open_descriptor(initrd_path)
        try:
            sandbox = make_sandbox(program, initrd, spec.memory, processor)
        finally:
            os.close(initrd)
    finally:
        os.close(program)
    try:
        if sandbox.uid is not None:
            give_to(disks.root, sandbox.uid)
            give_to(disks.transfer_disk, sandbox.uid)
        return UmlProcess(
            lambda link, receipts: [
                *sandbox.command,
                *kernel_arguments(
                    spec, disks, is_own=kernel.is_own, link=link, receipts=receipts, card=card
                ),
            ],
            Path("/"),
            (*sandbox.descriptors, *disks.descriptors, *(() if card is None else (card,))),
            is_traced=not kernel.is_own,
        )
    finally:
        sandbox.close()
