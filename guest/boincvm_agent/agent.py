"""The agent's event loop: messages from the host, programs' streams, ended children."""

from __future__ import annotations

import _signal
import posix as os  # see __init__.py
import select
import time

from boincvm.bus.stomp import LINK_VERSION, Frame, StompError
from boincvm_agent import machine
from boincvm_agent.link import HostGoneError, Link
from boincvm_agent.prepared import Prepared
from boincvm_agent.program import Program
from boincvm_agent.spawn import CannotStartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from boincvm_agent import transfer
    from boincvm_agent.port import Port
    from boincvm_agent.quiesce import Quiesce
    from boincvm_agent.status_channel import StatusChannel
    from boincvm_agent.watch import Watches

BEAT_SECONDS = 5.0
"""Seconds between heartbeats until the host sets another interval."""
FASTEST_BEAT = 0.1


class Agent:
    """Serves the host over one link."""

    def __init__(self, port: Port) -> None:
        self._link = Link(port)
        self._beat = BEAT_SECONDS
        self._programs: dict[str, Program] = {}
        self._receivers: dict[str, transfer.Receiver] = {}
        self._senders: dict[str, transfer.Sender] = {}
        self._groups: list[Program] = []  # ended, their control group not yet removed
        self._watches: Watches | None = None
        self._quiescence: Quiesce | None = None
        self._random: machine.RandomNumbers | None = None
        self._machine_id: machine.MachineId | None = None
        self._prepared = Prepared()
        self._wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wake_write)

    def run(self) -> None:
        """Serve the host until it powers the machine off or is gone. Raises HostGoneError."""
        beats = f"{int(FASTEST_BEAT * 1000)},0"
        self._link.command(
            "CONNECT",
            {
                "accept-version": "1.2",
                "host": "boincvm",
                "heart-beat": beats,
                "link-version": LINK_VERSION,
            },
        )
        machine.set_up()
        self._link.command("SUBSCRIBE", {"id": "0", "destination": "/guest"})
        last_beat = time.monotonic()
        while True:
            if self._quiescence is not None and self._quiescence.is_on:
                self._listen(self._quiescence)
                # After `attach`, the host gets the programs' usage without delay.
                last_beat = -self._beat if self._programs else time.monotonic()
                continue
            wait = last_beat + self._beat - time.monotonic()
            if wait <= 0:
                self._send_beat()
                last_beat = time.monotonic()
                continue
            if self._watches is not None and self._watches.due is not None:
                wait = min(wait, self._watches.due - time.monotonic())
                if wait <= 0:
                    self._watches.check()
                    continue
            for descriptor, events in self._wait(wait):
                self._handle(descriptor, events)
            self._finish_programs()

    def _send_beat(self) -> None:
        """Send a heartbeat, and the usage of the programs for which the host asked for it."""
        for call, program in list(self._programs.items()):
            if program.reports_usage and self._link.has_room:
                try:
                    program.report_usage()
                except OSError as error:
                    self._lose(call, error)
        self._link.beat()
        self._groups = [program for program in self._groups if not program.clean_up()]

    def _listen(self, quiescence: Quiesce) -> None:
        """Wait once while quiesced: reap children and handle messages, nothing else."""
        woken, frames = quiescence.wait()
        if woken:
            self._wake_up()
        for frame in frames:
            self._handle_frame(frame)

    def _wait(self, seconds: float) -> list[tuple[int, int]]:
        """Wait for events; return them with their descriptors.

        The set of descriptors is small, so it is built for each call.
        """
        wanted = {self._wake_read: select.POLLIN, self._link.descriptor: select.POLLIN}
        if self._link.has_output:
            wanted[self._link.descriptor] |= select.POLLOUT
        for program in self._programs.values():
            if program.stdin_waiting >= 0:
                wanted[program.stdin_waiting] = select.POLLOUT
            if program.may_read:
                for descriptor in program.outputs:
                    wanted[descriptor] = select.POLLIN
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        return poll.poll(seconds * 1000)

    def _handle(self, descriptor: int, events: int) -> None:
        if descriptor == self._link.descriptor:
            if events & select.POLLIN:
                for frame in self._link.read():
                    self._handle_frame(frame)
            elif events & (select.POLLHUP | select.POLLERR):
                raise HostGoneError
            if events & select.POLLOUT:
                self._link.write()
        elif descriptor == self._wake_read:
            self._wake_up()
        else:
            for program in self._programs.values():
                if descriptor in program.outputs:
                    program.read_output(descriptor)
                    return
                if descriptor == program.stdin_waiting:
                    program.write_input()
                    return

    def _wake_up(self) -> None:
        """Handle the signals that have arrived, one byte each; most are SIGCHLD."""
        signals = os.read(self._wake_read, 4096)
        if self._watches is not None:
            self._watches.notice(signals)
        self._reap_children()

    def _reap_children(self) -> None:
        """Reap all ended children, including orphans that the kernel has given to us."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for call, program in list(self._programs.items()):
                if program.pid == pid:
                    self._end_program(call, program, status, usage.ru_maxrss)
                    self._finish_programs()  # report each before reaping the next

    def _end_program(self, call: str, program: Program, status: int, largest: int) -> None:
        try:
            program.end(status, largest)
        except OSError as error:
            self._lose(call, error)

    def _finish_programs(self) -> None:
        """Report the programs that are over; while quiesced, this waits until `attach`."""
        if self._quiescence is not None and self._quiescence.is_on:
            return
        for call, program in list(self._programs.items()):
            if program.is_over:
                if self._watches is not None:
                    self._watches.finish(call)
                try:
                    program.report()
                except OSError as error:
                    self._lose(call, error)
                    continue
                self._link.write()  # before the clean-up, which the host need not wait for
                self._forget(call)
        if self._link.has_output:
            self._link.write()

    def _lose(self, call: str, error: OSError) -> None:
        """Give up one program after an error; the guest keeps running."""
        self._programs[call].close()
        self._forget(call)
        self._link.send("lost", call, {"reason": str(error.errno or 0)})

    def _forget(self, call: str) -> None:
        program = self._programs.pop(call)
        if self._watches is not None:
            self._watches.drop(call)
        self._groups.append(program)

    def _handle_frame(self, frame: Frame) -> None:
        if frame.command == "CONNECTED":
            machine.set_clock(frame.headers["clock-ns"])
            if "host-name" in frame.headers:
                machine.set_host_name(frame.headers["host-name"])
            self._set_beat(frame.headers["heart-beat"].partition(",")[2])
        elif frame.command == "MESSAGE":
            kind, call = frame.headers["message"], frame.headers.get("call", "")
            try:
                self._handle_message(kind, call, frame)
            except CannotStartError as error:
                headers = {"reason": str(error.number), "at": error.where}
                self._link.send("failed", call, headers)
            except ValueError as error:
                self._fail(call, "unsafe", str(error))
            except OSError as error:
                if call in self._programs:
                    self._lose(call, error)
                else:
                    self._fail(call, str(error.errno or 0), error.strerror or str(error))

    def _handle_message(self, kind: str, call: str, frame: Frame) -> None:
        if kind == "run":
            self._programs[call] = self._start(call, frame)
        elif kind == "put":
            from boincvm_agent import transfer

            receiver = transfer.Receiver(self._link, transfer.DISK, call, frame.body)
            self._receivers[call] = receiver
        elif kind == "get":
            self._link.produce(self._send_tree(call, frame))
        elif kind == "clock":
            machine.set_clock(frame.headers["clock-ns"])
        elif kind == "power-off":
            self._link.write()
            machine.power_off()
        elif kind == "quiesce":
            self._quiesce(hold="hold" in frame.headers)
        elif kind == "attach":
            self._go_on(frame)
        elif call in self._programs:
            self._handle_program_message(kind, self._programs[call], frame)
        elif call in self._receivers:
            if not self._receivers[call].handle(kind, frame):
                del self._receivers[call]
        elif call in self._senders and kind in ("taken", "again"):
            self._senders[call].handle_copied(again=kind == "again")
            self._link.resume()
        # Any other message belongs to a call that has ended meanwhile.

    def _handle_program_message(self, kind: str, program: Program, frame: Frame) -> None:
        if kind == "stdin":
            program.feed(frame.body, ends="ends" in frame.headers)
        elif kind == "credit":
            program.grant(int(frame.headers["bytes"]))
        elif kind == "signal":
            program.signal(int(frame.headers["signal"]))
        elif kind == "watch":
            from boincvm_agent.watch import Watch, Watches

            if self._watches is None:
                self._watches = Watches(self._link)
            number = frame.headers["watch"]
            watch = Watch(self._link, program.call, number, program.directory, frame.body)
            self._watches.add(watch)

    def _quiesce(self, *, hold: bool) -> None:
        """Handle `quiesce`: prepare for the machine to be saved.

        No program may see random numbers that another copy of the machine sees too. So programs
        are held until `attach` arrives. Those that are to keep running for now wait until we have
        run, because we get the highest priority; on one processor that has the same effect.
        """
        from boincvm_agent.quiesce import Quiesce

        if hold:
            for program in self._programs.values():
                program.hold()
        elif self._programs:
            machine.put_first(first=True)
        if self._quiescence is None:
            self._quiescence = Quiesce(self._link, self._wake_read)
            self._random = machine.RandomNumbers()
        self._machine_id = None
        if not self._programs:
            self._prepare_for_copies()
        self._prepared.prepare()
        self._send_beat()  # the programs' usage so far is part of the saved state
        if not self._quiescence.is_on:
            self._quiescence.begin()

    def _prepare_for_copies(self) -> None:
        """Do what each copy of this machine need not do then."""
        machine.try_timer()
        try:
            self._machine_id = machine.MachineId()
        except (OSError, ValueError):
            pass  # a program has removed or shortened the file; it will be written as usual

    def _go_on(self, frame: Frame) -> None:
        """Handle `attach`: the same host or another one resumes us, perhaps much later."""
        if "entropy" in frame.headers:  # we are one copy of a machine among others
            self._random = self._random or machine.RandomNumbers()
            self._random.renew(frame.headers["entropy"])
            if self._machine_id is not None:
                self._machine_id.renew()
            else:
                machine.renew_machine_id()
        if "hardware-address" in frame.headers:
            machine.set_hardware_address(frame.headers["hardware-address"])
        if "host-name" in frame.headers:
            machine.set_host_name(frame.headers["host-name"])
        machine.set_clock(frame.headers["clock-ns"])
        if self._programs:
            machine.put_first(first=False)
            for program in self._programs.values():
                program.release()
        self._set_beat(frame.headers["heart-beat"])
        if self._quiescence is not None:
            self._quiescence.end()
        self._link.send("attached", "0", {"calls": " ".join(self._programs)})
        self._finish_programs()

    def _set_beat(self, milliseconds: str) -> None:
        self._beat = int(milliseconds) / 1000
        self._beat = max(self._beat, FASTEST_BEAT)

    def _start(self, call: str, frame: Frame) -> Program:
        """Handle `run`: the body has the directory, arguments and NAME=VALUE pairs, NUL between."""
        directory, *words = frame.body.split(b"\0")
        count = int(frame.headers["arguments"])
        argv, environment = words[:count], words[count:]
        credit = int(frame.headers["credit"])
        status_channel = (
            self._make_status_channel(call, environment)
            if "status-channel" in frame.headers
            else None
        )
        try:
            return Program(
                self._link,
                self._prepared,
                call,
                directory,
                argv,
                environment,
                credit,
                status_channel,
                reports_usage="usage" in frame.headers,
            )
        except CannotStartError:
            if status_channel is not None:
                status_channel.end()
                os.close(status_channel.descriptor)
            raise

    def _make_status_channel(self, call: str, environment: list[bytes]) -> StatusChannel:
        from boincvm_agent import status_channel

        try:
            made = status_channel.StatusChannel(call)
        except OSError as error:
            raise CannotStartError(error.errno or 0, "agent") from None
        name = status_channel.VARIABLE + b"="
        environment[:] = [pair for pair in environment if not pair.startswith(name)]
        environment.append(name + made.path.encode())
        return made

    def _send_tree(self, call: str, frame: Frame) -> Iterator[bool]:
        slots = [int(slot) for slot in frame.headers.get("slots", "").split()]
        size = int(frame.headers.get("slot-size", "0"))
        from boincvm_agent import transfer  # not before it is needed, for a quick start

        piece = int(frame.headers.get("disk-piece", "0"))
        sender = transfer.Sender(self._link, transfer.DISK, call, frame.body, slots, size, piece)
        self._senders[call] = sender
        try:
            yield from sender.steps()
        except ValueError as error:
            self._fail(call, "unsafe", str(error))
        except OSError as error:
            self._fail(call, str(error.errno or 0), error.strerror or str(error))
        finally:
            del self._senders[call]

    def _fail(self, call: str, reason: str, text: str) -> None:
        receiver = self._receivers.pop(call, None)
        if receiver is not None:
            receiver.close()
        self._link.send("failed", call, {"reason": reason}, text.encode(errors="replace"))


def main(port: Port) -> None:
    """Serve the host until it powers the machine off, and power off if the host is gone."""
    try:
        Agent(port).run()
    except (HostGoneError, StompError):
        machine.power_off()
