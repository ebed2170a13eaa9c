"""The stand-in's program that runs one machine; see __init__.py. QEMU is its child."""

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).absolute().parent
RUNNING = HERE / "running"
REALLY_BOOTS = HERE / "really_boots"
SECTOR = 2048
CONSOLE = 2
MARK = b"\5"
NO_ROOM = "There is not enough space in the file system for the selected operation"


class RefusedError(Exception):
    """What `vmrun` prints after "Error: "."""


class Qmp:
    """A monitor of QEMU's or of its storage daemon's."""

    def __init__(self, local: socket.socket) -> None:
        self._local = local
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.events: dict[str, asyncio.Event] = {}
        self.ended = asyncio.Event()
        self.on_reset: Callable[[], None] = lambda: None

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=self._local, limit=1 << 24)
        await self._reader.readline()
        self._task = asyncio.create_task(self._read())
        await self.execute("qmp_capabilities")

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                output = json.loads(line)
                if "event" in output:
                    name = output["event"]
                    if name == "RESET" and output["data"]["guest"]:
                        self.on_reset()
                    if name == "MIGRATION":
                        name += output["data"]["status"]
                    self.event(name).set()
                else:
                    self._answers.put_nowait(output)
        except OSError:
            pass
        self.ended.set()
        self._answers.put_nowait({"error": {"desc": "it has ended"}})

    def event(self, name: str) -> asyncio.Event:
        return self.events.setdefault(name, asyncio.Event())

    async def happens(self, *names: str) -> str:
        """Wait for one of the events, and return its name."""
        waiting = [asyncio.create_task(self.event(name).wait()) for name in names]
        end = asyncio.create_task(self.ended.wait())
        await asyncio.wait((*waiting, end), return_when=asyncio.FIRST_COMPLETED)
        for task in (*waiting, end):
            task.cancel()
        for name in names:
            if self.event(name).is_set():
                return name
        raise RefusedError(f"Unknown error: no {names[0]}: it has ended")

    async def execute(self, command: str, **arguments: object) -> Any:
        if self.ended.is_set():
            raise RefusedError(f"Unknown error: {command}: it has ended")
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode())
        answer = await self._answers.get()
        if "error" in answer:
            raise RefusedError(f"Unknown error: {command}: {answer['error']['desc']}")
        return answer["return"]


class Relay:
    """The console's line, on which the loader of the boot disc tells that it begins.

    QEMU starts the kernel without the loader, so that is done here.
    """

    async def open(self, path: str) -> None:
        local, remote = socket.socketpair()
        self.remote = remote.detach()
        _, self._out = await asyncio.open_unix_connection(path)
        self._in, self._writer = await asyncio.open_connection(sock=local)
        self._task = asyncio.create_task(self._copy())

    async def _copy(self) -> None:
        while data := await self._in.read(1 << 16):
            self.report(data)

    def report(self, data: bytes) -> None:
        if not self._out.is_closing():
            self._out.write(data)

    def reset(self) -> None:
        self.report(MARK)


class Settings:
    """A .vmx file, which the machine changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = path.read_text().splitlines()

    def get(self, name: str, default: str = "") -> str:
        for line in self._lines:
            match = re.fullmatch(r'\s*([^\s=]+)\s*=\s*"(.*)"\s*', line)
            if match and match[1].lower() == name.lower():
                return re.sub(r"(?:\|[0-9A-F]{2})+", _bytes, match[2])
        return default

    def put(self, name: str, value: str) -> None:
        stored = [
            line for line in self._lines if line.split("=")[0].strip().lower() != name.lower()
        ]
        self._lines = [*stored, f'{name} = "{value}"']
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in self._lines))
        new.rename(self.path)


def _bytes(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("|", "")).decode()


class Machine:
    def __init__(self, vmx: Path) -> None:
        self.vmx = vmx
        self.settings = Settings(vmx)
        self.directory = Path(self.settings.get("workingDir") or vmx.parent)
        self.disk = Path(self.settings.get("nvme0:0.fileName"))
        self.is_paused = False
        self.busy = asyncio.Lock()
        self.over = asyncio.Event()
        self.locks: list[Path] = []
        self.listed: list[Path] = []
        """What `vmrun` finds while the machine runs."""
        self._console: Relay | None = None
        self._snapshots: list[tuple[str, Path, str]] = []
        self._number, self._node = 0, "disk0"

    def lock(self) -> None:
        for path in (self.vmx, self.disk):
            location = path.with_name(path.name + ".lck")
            location.mkdir(exist_ok=True)
            for entry in location.iterdir():
                if Path(f"/proc/{entry.read_text()}").exists():
                    raise RefusedError("The file is already in use")
                entry.unlink()
            (location / "M00001.lck").write_text(str(os.getpid()))
            self.locks.append(location)

    def unlock(self) -> None:
        for location in self.locks:
            shutil.rmtree(location, ignore_errors=True)
        self.locks.clear()

    def log(self, line: str) -> None:
        with self.vmx.with_name("vmware.log").open("a") as file:
            file.write(f"2026-11-30T00:00:00.000Z In(05) vmx {line}\n")

    async def start(self) -> None:
        self.lock()
        self.log(f"Log for VMware Workstation pid={os.getpid()} version=17.5.0")
        export = RUNNING / f"{os.getpid()}.nbd"
        disk = {"driver": "vmdk", "node-name": "disk0", "discard": "unmap",
                "file": {"driver": "file", "filename": str(self.disk),
                         "locking": "off"}}  # fmt: skip
        self._daemon, self.storage = self._launch(
            ["qemu-storage-daemon", "--blockdev", json.dumps(disk),
             "--nbd-server", f"addr.type=unix,addr.path={export}",
             "--export", "type=nbd,id=e0,node-name=disk0,name=disk,writable=on",
             "--chardev", "socket,id=mon,fd={monitor}", "--monitor", "chardev=mon"]
        )  # fmt: skip
        await self.storage.open()
        root = {"driver": "nbd", "node-name": "root", "export": "disk",
                "server": {"type": "unix", "path": str(export)}}  # fmt: skip
        command = [
            "qemu-system-x86_64", "-name", str(self.vmx).replace(",", ",,"),
            "-accel", "tcg,tb-size=256", "-cpu", "max,erms=off,fsrm=off", "-machine", "pc",
            "-m", self.settings.get("memsize") + "M", "-smp", self.settings.get("numvcpus"),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-shutdown",
            "-chardev", "socket,id=mon,fd={monitor}", "-mon", "chardev=mon,mode=control",
            "-blockdev", json.dumps(root), "-device", "virtio-blk-pci,drive=root",
        ]  # fmt: skip
        for line in range(4):
            if self.settings.get(f"serial{line}.present") == "TRUE":
                assert self.settings.get(f"serial{line}.fileType") == "pipe"
                assert self.settings.get(f"serial{line}.pipe.endPoint") == "client"
                path = self.settings.get(f"serial{line}.fileName")
                where = "path=" + path.replace(",", ",,")
                if line == CONSOLE and not REALLY_BOOTS.exists():
                    self._console = Relay()
                    where = "fd={console}"
                    await self._console.open(path)
                command += ["-chardev", f"socket,id=line{line},{where}"]
                command += ["-serial", f"chardev:line{line}"]
        state = self.settings.get("checkpoint.vmState")
        command += self._boot() if not state else ["-incoming", "defer"]
        self._qemu, self.monitor = self._launch(command)
        if self._console is not None:
            self.monitor.on_reset = self._console.reset
        await self.monitor.open()
        await self.monitor.execute(
            "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
        )
        if state:
            await self._go_on(Path(state))

    def _launch(self, command: Sequence[str]) -> tuple[subprocess.Popen[bytes], Qmp]:
        local, remote = socket.socketpair()
        with remote:
            words = [word.replace("{monitor}", str(remote.fileno())) for word in command]
            inherited = [remote.fileno()]
            if self._console is not None:
                words = [word.replace("{console}", str(self._console.remote)) for word in words]
                inherited.append(self._console.remote)
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=inherited
            )
        return child, Qmp(local)

    def _boot(self) -> list[str]:
        if self.settings.get("ide1:0.present") != "TRUE":
            return []
        disc = Path(self.settings.get("ide1:0.fileName"))
        if REALLY_BOOTS.exists():
            cd = {"driver": "raw", "node-name": "cd", "read-only": True,
                  "file": {"driver": "file", "filename": str(disc)}}  # fmt: skip
            return ["-blockdev", json.dumps(cd), "-device", "ide-cd,drive=cd", "-boot", "d"]
        kernel, initrd, arguments = read_boot_disc(disc)
        assert self._console is not None
        self._console.report(MARK)
        files = {"kernel": kernel, "initrd": initrd}
        for name, content in files.items():
            (self.vmx.parent / name).write_bytes(content)
        return ["-kernel", str(self.vmx.parent / "kernel"),
                "-initrd", str(self.vmx.parent / "initrd"), "-append", arguments]  # fmt: skip

    async def _go_on(self, state: Path) -> None:
        if not state.is_absolute():
            state = self.directory / state
        memory = state.with_suffix(".vmem")
        if not state.is_file() or not memory.is_file():
            raise RefusedError("A file was not found")
        await self.monitor.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(memory))}")
        await self.monitor.happens("MIGRATIONcompleted")
        if self.settings.get("checkpoint.vmState.readOnly") != "TRUE":
            state.unlink()
            memory.unlink()
        self.settings.put("checkpoint.vmState", "")
        await self.monitor.execute("cont")

    async def _write_memory(self, state: Path) -> None:
        """Write what a stopped machine goes on from; it runs on if there is no room for that."""
        await self.monitor.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        for end in ("completed", "failed"):
            self.monitor.event(f"MIGRATION{end}").clear()
        memory = state.with_suffix(".vmem")
        uri = f"exec:cat >{shlex.quote(str(memory))}"
        await self.monitor.execute("migrate", uri=uri)
        if await self.monitor.happens("MIGRATIONcompleted", "MIGRATIONfailed") == "MIGRATIONfailed":
            memory.unlink()
            if not self.is_paused:
                await self.monitor.execute("cont")
            raise RefusedError(NO_ROOM)
        state.write_text("devices, of the stand-in for VMware\n")

    async def stop(self) -> None:
        self.end(0)

    async def pause(self) -> None:
        await self.monitor.execute("stop")
        self.is_paused = True

    async def unpause(self) -> None:
        await self.monitor.execute("cont")
        self.is_paused = False

    async def suspend(self) -> None:
        if self.is_paused:
            raise RefusedError("The operation is not supported for the virtual machine")
        await self.monitor.execute("stop")
        state = self.directory / f"{self.vmx.stem}-{os.getpid():08x}.vmss"
        await self._write_memory(state)
        self.settings.put("checkpoint.vmState", state.name)
        self.settings.put("checkpoint.vmState.readOnly", "FALSE")
        self.end(0)

    async def snapshot(self, name: str) -> None:
        if not self.is_paused:
            await self.monitor.execute("stop")
        number = self._number + 1
        await self._write_memory(self.directory / f"{self.vmx.stem}-Snapshot{number}.vmsn")
        self._snapshots.append((name, self.disk, self._node))
        self._number = number
        stem = re.sub(r"-[0-9]{6}$", "", self.disk.stem)
        taken = (self.disk.with_name(f"{stem}-{at:06d}.vmdk") for at in range(1, 1000))
        new = next(path for path in taken if not path.exists())
        command = ["qemu-img", "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", str(self.disk)]
        created = await asyncio.create_subprocess_exec(*command, str(new), stdout=2)
        if await created.wait():
            raise RefusedError("Unknown error: qemu-img create")
        # Without locks: with them, the next layer over this one could not be created.
        file = {"driver": "file", "filename": str(new), "locking": "off"}
        await self.storage.execute(
            "blockdev-add",
            **{"driver": "vmdk", "node-name": f"disk{number}", "discard": "unmap", "file": file,
               "backing": None},
        )  # fmt: skip
        await self.storage.execute("blockdev-snapshot", node=self._node, overlay=f"disk{number}")
        self._node = f"disk{number}"
        self.disk = new
        self.settings.put("nvme0:0.fileName", str(new))
        if not self.is_paused:
            await self.monitor.execute("cont")

    async def delete_snapshot(self, name: str) -> None:
        """Remove the last snapshot: what was written since goes into the layer beneath."""
        if not self._snapshots or self._snapshots[-1][0] != name:
            raise RefusedError("The snapshot does not exist")
        _, below, node = self._snapshots.pop()
        for event in ("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED"):
            self.storage.event(event).clear()
        await self.storage.execute(
            "block-commit", device=self._node, **{"base-node": node, "job-id": "commit"}
        )
        await self.storage.happens("BLOCK_JOB_READY")
        await self.storage.execute("block-job-complete", device="commit")
        await self.storage.happens("BLOCK_JOB_COMPLETED")
        await self.storage.execute("blockdev-del", **{"node-name": self._node})
        self.disk.unlink()
        for kind in (".vmsn", ".vmem"):
            state = f"{self.vmx.stem}-Snapshot{self._number}{kind}"
            (self.directory / state).unlink()
        self.disk, self._node = below, node
        self.settings.put("nvme0:0.fileName", str(below))

    def end(self, status: int) -> None:
        """Exit as VMware does: the log says so before the process has gone."""
        self.log(f"VMX exit ({status}).")
        self.unlock()
        self.over.set()

    def kill(self) -> None:
        """End it; it is listed no longer when its processes have gone, or a verb has ended it."""
        for path in self.listed:
            path.unlink(missing_ok=True)
        for child in (self._qemu, self._daemon):
            child.kill()
            child.wait()
        (RUNNING / f"{os.getpid()}.nbd").unlink(missing_ok=True)


def read_boot_disc(path: Path) -> tuple[bytes, bytes, str]:
    """Return the kernel, as an ELF file, the initrd and the arguments on a boot disc of ours."""
    disc = path.read_bytes()
    base = 20 * SECTOR - 0x7C00
    (entry,) = struct.unpack_from("<I", disc, base + 0x7F08)
    parts = []
    at = base + 0x8000
    while (found := struct.unpack_from("<III", disc, at))[1]:
        sector, count, address = found
        parts.append((address, disc[sector * SECTOR : (sector + count) * SECTOR]))
        at += 12
    (length,) = struct.unpack_from("<Q", disc, base + 0x8180 + 8)
    initrd = parts.pop()[1][:length]
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)
    headers, offset = b"", 64 + 56 * (len(parts) + 1)
    for kind, address, content in [(1, *part) for part in parts] + [(4, 0, note)]:
        size = len(content)
        headers += struct.pack("<IIQQQQQQ", kind, 7, offset, address, address, size, size, 4)
        offset += size
    elf = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, len(parts) + 1, 0, 0, 0
    )
    kernel = elf + headers + b"".join(content for _, content in parts) + note
    text = disc[base + 0x8800 :].partition(b"\0")[0].decode()
    return kernel, initrd, text


async def serve(machine: Machine, name: str) -> None:
    """Do what `vmrun` asks for until the machine ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := await reader.readline():
            verb, *arguments = json.loads(line)
            refused = ""
            async with machine.busy:
                try:
                    await getattr(machine, verb)(*arguments)
                except RefusedError as error:
                    refused = str(error)
            if machine.over.is_set():
                machine.kill()
            writer.write(json.dumps([refused, ""]).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(answer, RUNNING / name)
    machine.listed = [RUNNING / f"{name}.vmx", RUNNING / name]
    machine.listed[0].write_text(str(machine.vmx))
    print("ready", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    powered_off = asyncio.create_task(machine.monitor.event("SHUTDOWN").wait())
    killed = asyncio.create_task(machine.monitor.ended.wait())
    over = asyncio.create_task(machine.over.wait())
    await asyncio.wait((powered_off, killed, over), return_when=asyncio.FIRST_COMPLETED)
    if powered_off.done() and not machine.over.is_set():
        machine.end(0)
    async with machine.busy:
        machine.kill()
    server.close()


async def main(vmx: Path) -> None:
    sys.path.insert(0, str(HERE))
    from vmrun import name_of

    machine = Machine(vmx)
    try:
        await machine.start()
    except RefusedError as error:
        print(error, flush=True)
        machine.unlock()
        sys.exit(1)
    await serve(machine, name_of(vmx))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
