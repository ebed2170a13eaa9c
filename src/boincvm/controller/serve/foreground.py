"""Run a controller with its servers in the foreground until a signal ends it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from boincvm.bus.broker_address import BrokerAddress, is_elsewhere
from boincvm.bus.outages import report_outages
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.hosts.bus_connection import Listen
from boincvm.controller.machines.controller_node import USUAL_RIGHTS, RemoteRights
from boincvm.controller.serve.auth import Policy, token_in
from boincvm.controller.serve.server import ListenAddress, Server
from boincvm.errors import BoincvmError
from boincvm.host.inherited import not_ignored
from boincvm.host.signals import TERMINATION_SIGNALS, add_signal_handlers
from boincvm.paths import controller_directory
from boincvm.standard_error import is_terminal, write_line

SOCKET, TOKEN = "http.sock", "token"
# Callers of the UNIX socket are this user or root, who have access to these files anyway.
_OWNER = Policy(trusts_all=True, shared=Path("/"))


async def run_in_foreground(
    listen_address: ListenAddress | None,
    listen: Listen | None,
    broker: BrokerAddress | None,
    *,
    any_host: bool,
    shared: Path | None,
    rights: RemoteRights = USUAL_RIGHTS,
) -> None:
    """Run the controller until a signal, and say where it can be reached. Raises BoincvmError.

    `listen_address`: where to serve over TCP, if at all; `listen`, `broker`, `rights`: see
    `run_controller`; `any_host`: accept requests that are addressed to any host name; `shared`:
    see Policy.
    """
    ended = asyncio.Event()
    add_signal_handlers(not_ignored(TERMINATION_SIGNALS), lambda _: ended.set())
    directory = controller_directory()
    async with run_controller(directory, listen=listen, broker=broker, rights=rights) as controller:
        servers = [Server(controller, ListenAddress(directory / SOCKET), _OWNER)]
        address = ""
        try:
            await servers[0].open()
            write_line("the controller is running; Ctrl-C ends it, and machines keep running")
            report_outages(controller.side.bus)
            for warning in warnings(listen_address, listen, broker):
                write_line(f"warning: {warning}")
            if listen_address is not None:
                token = token_in(directory / TOKEN)
                hosts = () if any_host else Policy().hosts
                policy = Policy(token=token, hosts=hosts, shared=shared)
                servers.append(Server(controller, listen_address, policy))
                host, port = await servers[1].open()
                scheme = "https" if listen_address.certificate else "http"
                address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
                # What is not read by a person is kept, as by systemd's journal.
                write_line(
                    f"web page: {address}/#token={token}"
                    if is_terminal()
                    else f"web page: {address}/ (it asks for the token in {directory / TOKEN})"
                )
            if controller.side.address is not None:
                write_line("guests reach the bus at {} port {}".format(*controller.side.address))
            await _until(ended, controller)
        finally:
            for server in servers:
                await server.close()
        running = sum(machine.has_shim for machine in controller.machines.all())
    write_line(f"the controller has ended; {running} machines keep running")


def warnings(
    listen_address: ListenAddress | None, listen: Listen | None, broker: BrokerAddress | None
) -> Iterator[str]:
    """Yield a warning for each secret that the network can read."""
    if (
        listen_address is not None
        and not listen_address.certificate
        and is_elsewhere(listen_address.host)
    ):
        yield "without --tls-certificate anyone who listens on the network learns the token"
    if listen is not None and not listen.certificate and is_elsewhere(listen.host):
        yield "without --bus-certificate anyone who listens on the network learns guests' passcodes"
    if broker is not None and broker.can_be_read:
        yield "without --broker-ca anyone who listens on the network learns the broker's passcode"


async def _until(ended: asyncio.Event, controller: Controller) -> None:
    """Wait until the controller is to end. Raises BoincvmError if its bus fails."""
    signalled = asyncio.ensure_future(ended.wait())
    failure = controller.side.bus.failure
    try:
        await asyncio.wait((signalled, failure), return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            raise BoincvmError(f"the bus has failed: {failure.result()!r}")
    finally:
        signalled.cancel()
