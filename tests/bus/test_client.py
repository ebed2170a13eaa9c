"""Our client against the embedded broker: it reconnects, and nothing acknowledged is lost."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.bus.access import Account, Accounts
from boincvm.bus.broker import Broker, BrokerLimits
from boincvm.bus.client import Address, StompBus
from boincvm.bus.client_connection import ClientConnection
from boincvm.bus.outages import report_outages
from boincvm.bus.transport import Message
from boincvm.errors import BusError
from support.bus.embedded import LIMIT, PASSCODE, accounts, broker, bus
from support.certificates import self_signed

pytestmark = pytest.mark.timeout(90)


class Inbox:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._news = asyncio.Event()

    def take(self, message: Message) -> None:
        self.messages.append(message)
        self._news.set()

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                self._news.clear()
                await self._news.wait()


async def test_to_and_fro() -> None:
    inbox, answers = Inbox(), Inbox()
    async with broker() as (_, address), bus(address) as host, bus(address, "g1") as guest:
        await guest.subscribe("/topic/guest.g1", inbox.take)
        end = await host.subscribe("/topic/host.*", answers.take)
        await host.send("/topic/guest.g1", {"message": "a:b\n"}, b"hello")
        await inbox.until(lambda: inbox.messages)
        assert inbox.messages == [
            Message("/topic/guest.g1", {"message": "a:b\n"}, b"hello", "host")
        ]
        guest.post("/topic/host.g1", {"sender": "host"}, b"yes")
        await answers.until(lambda: answers.messages)
        assert answers.messages[0].sender == "g1"
        await end()
        await guest.send("/topic/host.g1", {}, b"nobody hears that")
        await host.send("/topic/guest.g1", {}, b"again")
        await inbox.until(lambda: len(inbox.messages) == 2)
        assert len(answers.messages) == 1


async def test_what_it_may_not_do() -> None:
    async with broker() as (_, address):
        with pytest.raises(BusError, match="refused the login"):
            await StompBus.open(address, "g1", "wrong")
        async with bus(address, "g1") as guest:
            with pytest.raises(BusError, match="may not send"):
                await guest.send("/topic/host.g2", {}, b"")
            with pytest.raises(BusError, match="may not subscribe"):
                await guest.subscribe("/topic/guest.*", lambda _: None)
            inbox = Inbox()  # each time the broker has closed the connection
            await guest.subscribe("/topic/guest.g1", inbox.take)
            assert guest.connections >= 2


async def test_no_broker_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BusError, match="cannot be reached"):
        await StompBus.open(Address(port=port), "host", PASSCODE)


async def test_a_port_that_is_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(BusError, match="cannot listen"),
    ):
        await Broker(accounts()).listen_tcp("127.0.0.1", taken.getsockname()[1])


async def test_the_broker_goes_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    """What was acknowledged was delivered; what was sent meanwhile is delivered afterwards."""
    inbox = Inbox()
    async with broker() as (first, address):
        host, guest = [await StompBus.open(address, name, PASSCODE) for name in ("host", "g1")]
        report_outages(guest)
        await guest.subscribe("/topic/guest.g1", inbox.take)
        await host.send("/topic/guest.g1", {}, b"before")
        await first.close()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(host.send("/queue/kept", {}, b"meanwhile"))
            await asyncio.sleep(0.3)  # long enough for an attempt in vain
            assert not waiting.done()
            second = Broker(accounts())
            await second.listen_tcp(address.host, address.port)
        await guest.subscribe("/topic/all.x", inbox.take)  # it is connected again
        await host.send("/topic/guest.g1", {}, b"after")
        await inbox.until(lambda: b"after" in inbox.bodies)
        assert inbox.bodies == [b"before", b"after"]
        stored = Inbox()
        await host.subscribe("/queue/kept", stored.take)
        await stored.until(lambda: stored.messages)
        assert stored.bodies == [b"meanwhile"]
        assert (host.connections, guest.connections) == (2, 2)
        for one in (host, guest):
            await one.close()
        await second.close()
    lost, back = capsys.readouterr().err.splitlines()
    assert f"the broker at {address} has closed the connection" in lost
    assert back == "the broker is there again"


async def test_a_post_without_a_connection_is_counted() -> None:
    async with broker() as (of, address), bus(address) as host:
        assert host._connection is not None
        lost = host._connection.lost
        await of.close()
        async with asyncio.timeout(LIMIT):
            await lost
        await asyncio.sleep(0)  # the task that waited for that has its turn
        assert not host.is_connected
        host.post("/topic/x", {}, b"")
        assert host.dropped == 1


async def test_a_broker_that_falls_silent_counts_as_gone() -> None:
    """Simulate a half-open connection: a peer that reads everything and sends nothing."""
    connections = 0
    third = asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 3:
            third.set()
        await reader.readuntil(b"\0")
        writer.write(b"CONNECTED\nversion:1.2\nheart-beat:100,0\n\n\0")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    address = Address(port=server.sockets[0].getsockname()[1])
    opened = await StompBus.open(address, "host", PASSCODE, heart_beat=100)
    async with asyncio.timeout(LIMIT):
        await third.wait()
    await opened.close()
    server.close()
    await server.wait_closed()


async def test_a_receiver_s_fault_is_not_passed_over() -> None:
    def fail(_: Message) -> None:
        raise ZeroDivisionError

    async with broker() as (_, address), bus(address) as host:
        await host.subscribe("/topic/x", fail)
        host.post("/topic/x", {}, b"")
        async with asyncio.timeout(LIMIT):
            assert isinstance(await host.failure, ZeroDivisionError)
        with pytest.raises(BusError, match="closed"):
            await host.send("/topic/x", {}, b"")


async def test_a_unix_socket_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = Path("bus.sock")
    running = Broker(accounts())
    await running.listen_unix(path)
    assert path.stat().st_mode & 0o777 == 0o600
    inbox = Inbox()
    async with bus(Address(path=path)) as host:
        await host.subscribe("/topic/x", inbox.take)
        await host.send("/topic/x", {}, b"1")
        await inbox.until(lambda: inbox.messages)
    await running.close()


async def test_tls(tmp_path: Path) -> None:
    certificate, key, _ = self_signed(tmp_path, PASSCODE)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    running = Broker(accounts())
    host, port = await running.listen_tcp("127.0.0.1", 0, server)
    inbox = Inbox()
    known = ssl.create_default_context(cafile=str(certificate))
    async with bus(Address(host=host, port=port, security=known)) as opened:
        await opened.subscribe("/topic/x", inbox.take)
        await opened.send("/topic/x", {}, bytes(300_000))
        await inbox.until(lambda: inbox.messages)
        assert len(inbox.messages[0].body) == 300_000
    strange = ssl.create_default_context()
    with pytest.raises(BusError, match="cannot be reached"):
        await StompBus.open(Address(host=host, port=port, security=strange), "host", PASSCODE)
    await running.close()


@pytest.mark.parametrize("guests", [300])
async def test_a_word_to_many_and_all_their_answers(guests: int) -> None:
    names = [f"m{number}" for number in range(guests)]
    digest = accounts().verify("host", PASSCODE)
    assert digest is not None
    known = Accounts([digest._replace(login=name) for name in names])
    known.add(Account("host", digest.passcode_digest, digest.may_send, digest.may_subscribe))
    answers = Inbox()
    async with broker(BrokerLimits(), known=known) as (of, address), bus(address) as host:
        await host.subscribe("/topic/host.*", answers.take)
        opened = []
        for name in names:
            guest = await StompBus.open(address, name, PASSCODE, heart_beat=0)

            def answer(message: Message, guest: StompBus = guest, name: str = name) -> None:
                guest.post(f"/topic/host.{name}", {}, message.body + name.encode())

            await guest.subscribe("/topic/all.x", answer)
            opened.append(guest)
        assert of.connections == guests + 1
        host.post("/topic/all.x", {}, b"hello ")
        await answers.until(lambda: len(answers.messages) == guests)
        assert {one.sender for one in answers.messages} == set(names)
        assert all(one.body == b"hello " + one.sender.encode() for one in answers.messages)
        for guest in opened:
            await guest.close()


async def test_one_that_is_lost_before_its_login_complains_of_nothing():
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    connection = ClientConnection(lambda _frame: None, 0)
    connection.connection_lost(None)
    assert connection.lost.done()
    del connection
    gc.collect()
    assert complaints == []
