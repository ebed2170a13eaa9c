"""XML-RPC as a client of CERN's VM Controller speaks it, and as its enemies do."""

import asyncio
import http.client
import inspect
import os
import socket
import time
import xmlrpc.client
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm import __version__
from boincvm.controller.serve.auth import Policy
from boincvm.controller.serve.server import ListenAddress
from boincvm.controller.serve.xml_rpc import MOST_BYTES, read_call
from boincvm.controller.serve.xml_rpc_calls import check_call
from boincvm.controller.serve.xml_rpc_methods import STATES, Methods
from boincvm.errors import UsageError
from support.controller.faces import BEARER, TOKEN, Faces

pytestmark = pytest.mark.timeout(60)
ORIGINAL = [
    "listRegisteredVMs",
    "runCmd",
    "listFinishedCmds",
    "getCmdResults",
    "getCmdDetails",
    "ping",
    "cpFileToVM",
    "cpFileFromVM",
    "help",
    "start",
    "shutdown",
    "reset",
    "powerOff",
    "pause",
    "unpause",
    "resume",
    "saveState",
    "discardState",
    "getState",
    "states",
    "listAvailableVMs",
    "listVMs",
    "listRunningVMs",
    "listVMsWithState",
    "saveSnapshot",
    "takeSnapshot",
    "restoreSnapshot",
    "deleteSnapshot",
    "listSnapshots",
    "createVM",
    "removeVM",
    "getNamesToIdsMapping",
    "getIdsToNamesMapping",
    "getPerformanceData",
    "getStats",
    "version",
]
RUSAGE = [
    "ru_utime",
    "ru_stime",
    "ru_maxrss",
    "ru_ixrss",
    "ru_idrss",
    "ru_isrss",
    "ru_minflt",
    "ru_majflt",
    "ru_nswap",
    "ru_inblock",
    "ru_oublock",
    "ru_msgsnd",
    "ru_msgrcv",
    "ru_nsignals",
    "ru_nvcsw",
    "ru_nivcsw",
]


@pytest.fixture
async def faces(tmp_path):
    async with Faces.open(tmp_path) as made:
        await made.serve_tcp()
        for name in ("1.1.1", "1.2.1", "1.2.2"):
            await made.add_guest(name, last=name[-1])
        yield made


class Old:
    """An old client, in a thread of its own."""

    def __init__(self, faces, transport=None):
        address = f"http://x:{TOKEN}@127.0.0.1:{faces.port}/RPC2"
        self._options = {"transport": transport} if transport else {}
        self._address = "http://localhost/RPC2" if transport else address

    async def __call__(self, name, *parameters):
        def call():
            with xmlrpc.client.ServerProxy(
                self._address, allow_none=True, **self._options
            ) as proxy:
                method = proxy
                for part in name.split("."):
                    method = getattr(method, part)
                return method(*parameters)

        return await asyncio.to_thread(call)

    async def fault(self, name, *parameters):
        with pytest.raises(xmlrpc.client.Fault) as caught:
            await self(name, *parameters)
        return caught.value.faultString

    async def finished(self, command):
        async with asyncio.timeout(20):
            while True:
                told = await self("getCmdResults", command)
                results = [told] if "out" in told else told.values()
                if all(one["finished"] for one in results):
                    return told


class UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path):
        super().__init__()
        self._path = str(path)

    def make_connection(self, host):
        made = http.client.HTTPConnection("localhost")
        made.sock = socket.socket(socket.AF_UNIX)
        made.sock.connect(self._path)
        self._connection = host, made  # what close() closes
        return made


@pytest.fixture
def old(faces):
    return Old(faces)


async def test_all_original_names_are_there_and_explained(old):
    names = await old("system.listMethods")
    assert set(ORIGINAL) <= set(names)
    for name in names:
        told = await old("help", name)
        assert told.startswith(f"{name}(")
        assert ":\n" in told
        assert "None" not in told.partition(":\n")[2]
    whole = await old("help")
    assert [name for name in ORIGINAL if f"{name}(" not in whole] == []
    assert "runCmd(vm, cmd, args" in await old("help", "runCmd")
    assert "no method" in await old.fault("help", "fly")


async def test_who_is_there(old):
    names = ["1.1.1", "1.2.1", "1.2.2"]
    for method in ("listVMs", "listAvailableVMs", "listRegisteredVMs", "listRunningVMs"):
        assert sorted(await old(method)) == names
    assert await old("getNamesToIdsMapping") == {name: name for name in names}
    assert await old("getIdsToNamesMapping") == {name: name for name in names}
    assert await old("listVMsWithState") == dict.fromkeys(names, "Running")
    assert await old("getState", "1.1.1") == "Running"
    assert await old("getState", "1.2.*") == {"1.2.1": "Running", "1.2.2": "Running"}
    assert "no machine 'x'" in await old.fault("getState", "x")
    assert await old("version") == __version__
    assert set(await old("states")) == set(STATES.values())
    assert len(STATES) == 12


async def test_ping(old):
    assert await old("ping", "1.1.1") == "PONG from 1.1.1"
    assert await old("ping", "1.1.1", 5) == "PONG from 1.1.1"
    assert await old("ping", "1.2.*", 5.0) == {f"1.2.{n}": f"PONG from 1.2.{n}" for n in (1, 2)}
    assert "no machine" in await old.fault("ping", "x")


async def test_a_command_and_its_results_as_often_as_one_likes(old):
    command = await old("runCmd", "1.1.1", "/bin/echo", ["hello", 5], {"A": "b"})
    assert isinstance(command, str)
    result = await old.finished(command)
    assert set(result) == {"out", "err", "finished", "exitCodeOrSignal", "resources"}
    assert (result["out"], result["err"], result["exitCodeOrSignal"]) == ("hello5", "", 3)
    assert sorted(result["resources"]) == sorted(RUSAGE)
    assert result["resources"]["ru_utime"] == 0.5
    assert result["resources"]["ru_nswap"] == 0
    assert await old("getCmdResults", command) == result
    details = await old("getCmdDetails", command)
    assert (details["cmd"], details["args"], details["env"]) == (
        "/bin/echo",
        ["hello", "5"],
        {"A": "b"},
    )


async def test_finished_commands_are_listed_until_they_are_read(faces, old):
    await faces.call("exec", vms="1.1.1", argv=["echo"], id="of-another-face")
    command = await old("runCmd", "1.1.1", "echo", ["x"])
    async with asyncio.timeout(20):
        while command not in await old("listFinishedCmds"):
            pass
    assert await old("listFinishedCmds") == [command]
    await faces.serve_unix()
    by_unix = Old(faces, UnixTransport(faces.socket))
    await by_unix("getCmdResults", command)
    assert await old("listFinishedCmds") == await by_unix("listFinishedCmds") == []


async def test_a_command_to_two_of_three(old):
    command = await old("runCmd", "1.2.*", "echo", ["hi"])
    told = await old.finished(command)
    assert {name: one["out"] for name, one in told.items()} == {"1.2.1": "hi", "1.2.2": "hi"}
    labelled = await old.finished(await old("runCmd", "last=1", "echo"))
    assert sorted(labelled) == ["1.1.1", "1.2.1"]


async def test_input_from_a_file_of_the_guest_and_nothing_for_the_rest(faces, old):
    command = await old("runCmd", "1.1.1", "wc", "-l -c", None, None, "data.txt")
    details = await old("getCmdDetails", command)
    assert details["args"][-3:] == ["wc", "-l", "-c"]
    assert details["args"][2] == "data.txt"


async def test_a_program_that_is_not_there_and_one_that_is_killed(faces, old):
    missing = await old.finished(await old("runCmd", "1.1.1", "missing"))
    assert missing["exitCodeOrSignal"] == 127
    assert "no such program" in missing["err"]
    command = await old("runCmd", "1.1.1", "wait", ["x"])
    assert (await old("getCmdResults", command))["finished"] is False
    await faces.call("signal", id=command, signal=9)
    assert (await old.finished(command))["exitCodeOrSignal"] == -9


async def test_what_xml_cannot_say(old):
    result = await old.finished(await old("runCmd", "1.1.1", "echo", ["\u00e4\U0001f600 <&>"]))
    assert result["out"] == "\u00e4\U0001f600 <&>"
    strange = "a\r\nb\tc"
    assert (await old.finished(await old("runCmd", "1.1.1", "echo", [strange])))["out"] is not None


async def test_control_characters_of_a_program(faces, old):
    told = await faces.call(
        "exec", vms="1.1.1", argv=["echo", "\x1b[1mbold\x1b[0m\r\nline\x07"], id="c"
    )
    assert told.status == 200
    result = await old.finished("c")
    assert result["out"] == "\ufffd[1mbold\ufffd[0m\r\nline\ufffd"


async def test_numbers_beyond_32_bits(old):
    told = await old("getStats", "1.1.1")
    assert told["memory_used"] == 3 << 30
    assert told == await old("getPerformanceData", "1.1.1") == await old("getStats", "1.1.1", "*")
    assert await old("getStats", "1.1.1", "cpu") == 0.5
    assert await old("getStats", "1.2.*", "cpu") == {"1.2.1": 0.5, "1.2.2": 0.5}
    assert "expected one of cpu" in await old.fault("getStats", "1.1.1", "height")


async def test_files_both_ways(faces, old, tmp_path):
    (tmp_path / "there").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "there").chmod(0o750)
    os.utime(tmp_path / "there", ns=(0, then := 1_234_567_890_123_456_789))
    assert await old("cpFileToVM", "1.1.1", str(tmp_path / "there"), "in/it") is True
    assert await old("cpFileToVM", "1.1.1", str(tmp_path / "there")) is True
    place = faces.guests["1.1.1"].file_root.root
    assert (place / "there").read_bytes() == (place / "in/it").read_bytes()
    assert await old("cpFileFromVM", "1.1.1", "in/it", str(tmp_path / "back")) is True
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o750
    assert (place / "in/it").stat().st_mtime_ns == then
    assert (tmp_path / "back").stat().st_mtime_ns == then
    (tmp_path / "directory").mkdir()
    assert await old("cpFileFromVM", "1.1.1", "in/it", str(tmp_path / "directory")) is True
    assert [path.name for path in (tmp_path / "directory").iterdir()] == ["it"]
    both = await old("cpFileToVM", "1.2.*", str(tmp_path / "there"), "it")
    assert both == {"1.2.1": True, "1.2.2": True}


async def test_files_of_this_host_that_are_not_shared(faces, old, tmp_path):
    await faces.serve_unix()
    (tmp_path / "out").symlink_to("/etc")
    for outside in ("/etc/passwd", "../x", str(tmp_path / "out" / "passwd"), "/dev/zero"):
        for method, parameters in (
            ("cpFileToVM", ("1.1.1", outside, "x")),
            ("cpFileFromVM", ("1.1.1", "x", outside)),
        ):
            assert "is not in the shared" in await old.fault(method, *parameters)
    (tmp_path / "round").symlink_to("round")
    assert "is not a path" in await old.fault("cpFileToVM", "1.1.1", "round", "x")
    # Paths may be relative to what is shared.
    (tmp_path / "a").write_text("a")
    assert await old("cpFileToVM", "1.1.1", "a", "x") is True
    assert await old("cpFileFromVM", "1.1.1", "x") is True
    assert (tmp_path / "x").read_text() == "a"
    # This user's own socket may name all.
    by_unix = Old(faces, UnixTransport(faces.socket))
    assert "cannot be read" in await by_unix.fault("cpFileToVM", "1.1.1", "/dev/zero", "x")
    assert await by_unix("cpFileToVM", "1.1.1", "/etc/hostname", "x") is True


async def test_where_nothing_is_shared_no_file_is_named(faces, tmp_path):
    await faces.serve(ListenAddress(), Policy(token=TOKEN))
    old = Old(faces)
    (tmp_path / "a").write_text("a")
    assert "cannot be named over TCP" in await old.fault("cpFileToVM", "1.1.1", "a", "x")
    assert "--share" in await old.fault("cpFileFromVM", "1.1.1", "x")


async def test_files_that_cannot_be_copied(old, tmp_path):
    assert "cannot be read" in await old.fault("cpFileToVM", "1.1.1", str(tmp_path / "none"), "x")
    assert "cannot be read" in await old.fault("cpFileToVM", "1.1.1", str(tmp_path), "x")
    (tmp_path / "x").write_text("x")
    assert await old.fault("cpFileToVM", "1.1.1", str(tmp_path / "x"), "../../x")
    assert "no machine" in await old.fault("cpFileToVM", "nobody", str(tmp_path / "x"), "x")
    assert "none" in await old.fault("cpFileFromVM", "1.1.1", "none", str(tmp_path / "y"))
    assert await old("cpFileToVM", "1.1.1", str(tmp_path / "x"), "x") is True
    gone = str(tmp_path / "gone" / "y")
    assert "cannot be written" in await old.fault("cpFileFromVM", "1.1.1", "x", gone)
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []


async def test_life_by_name_and_by_pattern(faces, old):
    assert await old("pause", "1.1.1") is True
    assert await old("unpause", "1.1.1") is True
    assert await old("resume", "1.2.*") == {"1.2.1": True, "1.2.2": True}
    assert faces.guests["1.1.1"].asked == ["pause", "resume"]
    assert "cannot be told to start" in await old.fault("start", "1.1.1", True)
    assert "matches no machine" in await old.fault("shutdown", "nobody")
    told = await old("reset", "1.2.*")
    assert all("cannot be told" in text for text in told.values())


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("fly", (), "no method 'fly'"),
        ("ping", (), "missing a required argument: 'vm'"),
        ("ping", ("a", 1.0, 2), "too many"),
        ("ping", (5,), "found 5, expected a text"),
        ("ping", ("1.1.1", "x"), "expected a number"),
        ("ping", ("1.1.1", True), "expected a number"),
        ("ping", ("1.1.1", -1.0), "not negative"),
        ("getState", ([],), "expected a text"),
        ("getState", ({},), "expected a text"),
        ("getState", (None,), "expected a text"),
        ("getState", (xmlrpc.client.Binary(b"x"),), "expected a text"),
        ("getState", (xmlrpc.client.DateTime(0),), "expected a text"),
        ("getCmdResults", ({"a": 1},), "expected a text"),
        ("getCmdResults", ("none",), "no command 'none'"),
        ("getCmdDetails", ([1],), "expected a text"),
        ("runCmd", ("1.1.1", "x", [[]]), "a list of texts"),
        ("runCmd", ("1.1.1", "x", [], {"a": []}), "a table of texts"),
        ("runCmd", ("1.1.1", ""), "without a program"),
        ("cpFileToVM", ("1.1.1", 1, "x"), "expected a text"),
        ("createVM", (1, "base"), "expected a text"),
        ("start", (1,), "expected a text"),
    ],
)
async def test_a_wrong_call_is_a_fault(old, name, parameters, said, caplog):
    assert said in await old.fault(name, *parameters)
    assert caplog.records == []


def with_optional():
    """Each method that has parameters which may be left out, and the number of the others."""
    for name, method in Methods(Mock(), None)._methods.items():
        parameters = list(inspect.signature(method).parameters.values())
        needed = sum(one.default is one.empty for one in parameters)
        if needed < len(parameters):
            yield pytest.param(method, ["x"] * needed, len(parameters), id=name)


@pytest.mark.parametrize(("method", "needed", "count"), list(with_optional()))
def test_nil_is_the_default_of_each_optional_parameter(method, needed, count):
    defaults = [
        one.default
        for one in inspect.signature(method).parameters.values()
        if one.default is not one.empty
    ]
    given = (*needed, *[None] * (count - len(needed)))
    assert check_call("x", method, given) == (*needed, *defaults)
    for left_out in range(len(needed), count):
        assert check_call("x", method, given[:left_out]) == (*needed, *defaults)[:left_out]
    if needed:
        with pytest.raises(UsageError, match="found nothing, expected"):
            check_call("x", method, (None, *given[1:]))


async def test_a_client_that_gives_nil(old):
    assert await old("ping", "1.1.1", None) == "PONG from 1.1.1"
    command = await old("runCmd", "1.1.1", "echo", None, None, None, None)
    assert (await old.finished(command))["finished"] is True
    assert await old("getStats", "1.1.1", None) == await old("getStats", "1.1.1")
    assert await old("listVMsWithState", None) == await old("listVMsWithState")
    assert await old("help", None) == await old("help")
    assert "matches no machine" in await old.fault("start", "none", None)
    assert "matches no machine" in await old.fault("takeSnapshot", "none", None, None)
    assert await old("createVM", "m", None) is True
    assert "bytes, expected a text" in await old.fault("getState", xmlrpc.client.Binary(b"x"))


# Hostile ones.

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;">]>
<methodCall><methodName>ping</methodName><params><param><value>&d;</value></param></params></methodCall>"""
FILE = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<methodCall><methodName>&a;</methodName></methodCall>"""
CALL = xmlrpc.client.dumps((), "version").encode()


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        BOMB.replace(b"DOCTYPE", b"doctype"),
        FILE,
        BOMB.decode().encode("utf-16"),
        BOMB.decode().encode("utf-16-be"),
        b'<?xml version="1.0" encoding="utf-7"?>' + CALL,
        b'<?xml version="1.0" encoding="cp037"?>' + BOMB.decode().encode("cp037"),
        b"",
        b"<",
        b"{}",
        b"<methodCall/>",
        b"<methodCall><methodName/></methodCall>",
        b"<methodCall><methodName>version</methodName>",
        b"<methodResponse><fault><value>x</value></fault></methodResponse>",
        b"<value><array><data></data></array></value>",
        (
            b"<methodCall><methodName>x</methodName><params><param><value><int>x</int></value></param>"
            b"</params></methodCall>"
        ),
        b"<methodCall><methodName>x</methodName><params><param><value><i4>"
        + b"9" * 100_000
        + b"</i4></value></param></params></methodCall>",
        (
            b"<methodCall><params><param><value><struct><member><value>x</value></member></struct>"
            b"</value></param></params></methodCall>"
        ),
        b"<methodCall>" + b"<value><array><data>" * 40_000,
        b"<methodCall><params>" + b"<param/>" * 100_000 + b"</params></methodCall>",
        b"<a>" * 300_000,
        b"\x00" * 100,
        b"\xff\xfe\x00",
    ],
)
async def test_a_hostile_body_is_a_fault_and_soon(faces, old, body, caplog):
    begun = time.monotonic()
    answer = await faces.ask("POST", "/RPC2", BEARER, body)
    assert time.monotonic() - begun < 2
    assert answer.status == 200
    with pytest.raises(xmlrpc.client.Fault):
        xmlrpc.client.loads(answer.body)
    assert await old("version") == __version__
    assert caplog.records == []


async def test_a_body_that_is_too_large(faces, old):
    answer = await faces.ask("POST", "/RPC2", {**BEARER, "Content-Length": str(MOST_BYTES + 1)})
    assert answer.status == 413
    assert (await faces.ask("GET", "/RPC2", BEARER)).status != 200
    assert await old("version") == __version__


async def test_a_bug_is_not_told(faces, old, monkeypatch, caplog):
    def broken(_selector):
        raise ZeroDivisionError("the secret of the house")

    monkeypatch.setattr(faces.controller.overview, "vms", broken)
    assert "secret" not in await old.fault("listVMs")
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


async def test_a_wrong_token_is_no_fault_but_an_error_of_http(faces):
    def call():
        with xmlrpc.client.ServerProxy(f"http://x:y@127.0.0.1:{faces.port}/RPC2") as proxy:
            return proxy.version()

    with pytest.raises(xmlrpc.client.ProtocolError) as caught:
        await asyncio.to_thread(call)
    assert caught.value.errcode == 401


async def test_over_the_unix_socket(faces):
    await faces.serve_unix()
    assert await Old(faces, UnixTransport(faces.socket))("version") == __version__


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 31), (1 << 31) - 1) | st.text("ab <&>\u00e4"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(values, max_size=4))
def test_a_call_is_read_as_it_was_written(parameters):
    data = xmlrpc.client.dumps(tuple(parameters), "name", allow_none=True).encode()
    assert read_call(data) == (tuple(parameters), "name")


@settings(max_examples=300)
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(CALL.split(b">")), max_size=30).map(b">".join)
)
def test_no_body_is_more_than_a_fault(data):
    try:
        read_call(data)
    except UsageError:
        pass
