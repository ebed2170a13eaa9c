"""XML-RPC as a client of CERN's VM Controller uses it."""

import asyncio
import inspect
import os
import xmlrpc.client
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm import __version__
from boincvm.controller.serve.auth import Policy
from boincvm.controller.serve.server import ListenAddress
from boincvm.controller.serve.xml_rpc import read_call
from boincvm.controller.serve.xml_rpc_calls import check_call
from boincvm.controller.serve.xml_rpc_methods import STATES, Methods
from boincvm.errors import UsageError
from support.controller.faces import TOKEN
from support.controller.xml_rpc_client import UnixTransport, XmlRpcClient

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
async def old(faces):
    """An old client, and three guests."""
    for name in ("1.1.1", "1.2.1", "1.2.2"):
        await faces.add_guest(name, last=name[-1])
    return XmlRpcClient(faces)


async def test_all_original_names_are_there_and_explained(old):
    names = await old("system.listMethods")
    assert set(ORIGINAL) <= set(names)
    for name in names:
        reported = await old("help", name)
        assert reported.startswith(f"{name}(")
        assert ":\n" in reported
        assert "None" not in reported.partition(":\n")[2]
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
    by_unix = XmlRpcClient(faces, UnixTransport(faces.socket))
    await by_unix("getCmdResults", command)
    assert await old("listFinishedCmds") == await by_unix("listFinishedCmds") == []


async def test_a_command_to_two_of_three(old):
    command = await old("runCmd", "1.2.*", "echo", ["hi"])
    reported = await old.finished(command)
    assert {name: one["out"] for name, one in reported.items()} == {"1.2.1": "hi", "1.2.2": "hi"}
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
    reported = await faces.call(
        "exec", vms="1.1.1", argv=["echo", "\x1b[1mbold\x1b[0m\r\nline\x07"], id="c"
    )
    assert reported.status == 200
    result = await old.finished("c")
    assert result["out"] == "\ufffd[1mbold\ufffd[0m\r\nline\ufffd"


async def test_numbers_beyond_32_bits(old):
    reported = await old("getStats", "1.1.1")
    assert reported["memory_used"] == 3 << 30
    assert (
        reported == await old("getPerformanceData", "1.1.1") == await old("getStats", "1.1.1", "*")
    )
    assert await old("getStats", "1.1.1", "cpu") == 0.5
    assert await old("getStats", "1.2.*", "cpu") == {"1.2.1": 0.5, "1.2.2": 0.5}
    assert "expected one of cpu" in await old.fault("getStats", "1.1.1", "height")


async def test_files_both_ways(faces, old, tmp_path):
    (tmp_path / "there").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "there").chmod(0o750)
    os.utime(tmp_path / "there", ns=(0, then := 1_234_567_890_123_456_789))
    assert await old("cpFileToVM", "1.1.1", str(tmp_path / "there"), "in/it") is True
    assert await old("cpFileToVM", "1.1.1", str(tmp_path / "there")) is True
    location = faces.guests["1.1.1"].file_root.root
    assert (location / "there").read_bytes() == (location / "in/it").read_bytes()
    assert await old("cpFileFromVM", "1.1.1", "in/it", str(tmp_path / "back")) is True
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o750
    assert (location / "in/it").stat().st_mtime_ns == then
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
    by_unix = XmlRpcClient(faces, UnixTransport(faces.socket))
    assert "cannot be read" in await by_unix.fault("cpFileToVM", "1.1.1", "/dev/zero", "x")
    assert await by_unix("cpFileToVM", "1.1.1", "/etc/hostname", "x") is True


@pytest.mark.usefixtures("old")
async def test_where_nothing_is_shared_no_file_is_named(faces, tmp_path):
    await faces.serve(ListenAddress(), Policy(token=TOKEN))
    client = XmlRpcClient(faces)
    (tmp_path / "a").write_text("a")
    assert "cannot be named over TCP" in await client.fault("cpFileToVM", "1.1.1", "a", "x")
    assert "--share" in await client.fault("cpFileFromVM", "1.1.1", "x")


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
    assert "cannot be asked to start" in await old.fault("start", "1.1.1", True)
    assert "matches no machine" in await old.fault("shutdown", "nobody")
    reported = await old("reset", "1.2.*")
    assert all("cannot be asked to" in text for text in reported.values())


@pytest.mark.parametrize(
    ("name", "parameters", "sent"),
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
async def test_a_wrong_call_is_a_fault(old, name, parameters, sent, caplog):
    assert sent in await old.fault(name, *parameters)
    assert caplog.records == []


def with_optional():
    """Return each method with optional parameters, and the number of the others."""
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


async def test_over_the_unix_socket(faces):
    await faces.serve_unix()
    assert await XmlRpcClient(faces, UnixTransport(faces.socket))("version") == __version__


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 31), (1 << 31) - 1) | st.text("ab <&>\u00e4"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(values, max_size=4))
def test_a_call_is_read_as_it_was_written(parameters):
    data = xmlrpc.client.dumps(tuple(parameters), "name", allow_none=True).encode()
    assert read_call(data) == (tuple(parameters), "name")
