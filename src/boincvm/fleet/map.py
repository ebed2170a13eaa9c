"""`boincvm map --selector`: runs a command once for each input, in machines of a controller."""

import argparse
import secrets
from collections.abc import Sequence

from boincvm.client.client import Client
from boincvm.errors import UsageError
from boincvm.fleet.machines import present_machines
from boincvm.fleet.worker import FleetWorker
from boincvm.job.model import Job, MachineTask
from boincvm.job.sweep import Item, SweepCommand, job_of_item
from boincvm.runner.interruption import Interruption
from boincvm.runner.map import MapOptions, run_sweep
from boincvm.runner.sweep import Sweep
from boincvm.runner.sweep_report import TextReport
from boincvm.runner.sweep_results import SweepResults
from boincvm.side_thread import in_side_thread


def run_fleet_map(
    sweep: SweepCommand,
    arguments: argparse.Namespace,
    options: MapOptions,
    client: Client,
    selector: str,
) -> int:
    """Run `sweep` in the machines that `selector` matches; return the exit code.

    Raises BoincvmError.
    """

    async def run_items(items: Sequence[Item], results: SweepResults, report: TextReport) -> None:
        machines = await in_side_thread(present_machines, client, selector)
        if not machines:
            raise UsageError(
                f"no machine that {selector[:80]!r} matches runs, expected at least one",
                hint=f"boincvm ls shows their states; boincvm start '{selector[:80]}' starts them",
            )
        directory = f"map-{secrets.token_hex(4)}"
        limit = job_of(items[0], "1").limits.stop
        run = Sweep(
            items,
            job_of,
            lambda slot: FleetWorker(client, machines[slot - 1], directory),
            results,
            report,
        )
        workers = min(options.workers or len(machines), len(machines), len(items))
        await Interruption(run, limit).run(run.run(workers))

    def job_of(item: Item, slot: str) -> Job[MachineTask]:
        return job_of_item(arguments, sweep, item, slot)

    return run_sweep(sweep, arguments, options, run_items)
