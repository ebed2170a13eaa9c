"""The JSON interface: operations, what is refused, and how errors are reported."""

import json
import logging

import pytest
from openapi_spec_validator import validate

from boincvm import __version__, errors
from boincvm.controller import operations
from boincvm.controller.serve.bodies import MOST_JSON, error_answer
from boincvm.exit_codes import ExitCode
from support.controller.faces import BEARER, JSON

pytestmark = pytest.mark.timeout(60)


async def test_an_operation_gives_its_result(faces):
    assert (await faces.call("version")).result == {"version": __version__}
    await faces.add_guest("1.2.3", site="cern")
    found = (await faces.call("list", vms="site=cern")).result["vms"]
    assert [(vm["id"], vm["state"]) for vm in found] == [("1.2.3", "running")]
    empty = await faces.ask("POST", "/api/version", BEARER)
    assert empty.result == {"version": __version__}


async def test_a_snapshot_is_an_event(faces):
    for name in ("g1", "g2"):
        await faces.add_guest(name)
    taken = (await faces.call("snapshot_take", vms="all", name="one")).result["outcomes"]
    assert {vm: reported["snapshot"] for vm, reported in taken.items()} == {
        "g1": "one",
        "g2": "one",
    }
    events = (await faces.call("events")).result["events"]
    reported = [(one["vm"], one["text"]) for one in events if one["kind"] == "snapshot"]
    assert reported == [(vm, "the snapshot one is taken") for vm in ("g1", "g2")]


async def test_several_requests_on_one_connection(faces):
    talk = await faces.talk()
    for _ in range(3):
        await talk.ask("POST", "/api/version", {**JSON, **BEARER}, b"{}")
        assert (await talk.answer()).result == {"version": __version__}


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"vms": NaN}', "not a number"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"vms": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"vms": "\\ud800"}', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"vms": 7}', "parameter vms: found 7, expected a text"),
        (b'{"wms": "all"}', "unknown parameter 'wms'"),
        (b'{"vms": "a b"}', "not a valid selector"),
    ],
)
async def test_what_makes_no_sense_is_refused_as_such(faces, body, sent):
    answer = await faces.ask("POST", "/api/list", {**JSON, **BEARER}, body)
    assert answer.status == 400
    assert sent in answer.error["message"]
    assert answer.error["code"] == ExitCode.USAGE
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("number", [0, 65, 1 << 40])
async def test_signals_that_there_are_not(faces, number):
    await faces.add_guest("g1")
    await faces.call("exec", vms="g1", argv=["wait", "x"], id="c")
    answer = await faces.call("signal", id="c", signal=number)
    assert (answer.status, f"found the signal {number}" in answer.error["message"]) == (400, True)
    assert (await faces.call("signal", id="c", signal=9)).status == 200


async def test_a_fault_has_a_hint(faces):
    answer = await faces.call("start", vms="nobody")
    assert answer.status == 400
    assert "matches no machine" in answer.error["message"]
    assert "boincvm ls" in answer.error["hint"]


async def test_there_is_no_such_thing(faces):
    assert (await faces.call("fly")).status == 404
    assert (await faces.ask("GET", "/api/list", BEARER)).status == 404
    assert (await faces.ask("PUT", "/api/list", BEARER)).status == 405
    assert (await faces.ask("GET", "/nothing.html")).status == 404
    assert (await faces.ask("GET", "/../../etc/passwd")).status == 404
    assert (await faces.ask("GET", "/%2e%2e/%2e%2e/etc/passwd")).status == 404


async def test_a_form_is_no_json(faces):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await faces.ask("POST", "/api/list", {**form, **BEARER}, b"{}")
    assert answer.status == 415
    assert "application/json" in answer.error["hint"]


async def test_a_body_that_is_too_large_is_refused_unread(faces):
    talk = await faces.talk()
    length = {"Content-Length": str(MOST_JSON + 1)}
    await talk.ask("POST", "/api/list", {**JSON, **BEARER, **length})
    assert (await talk.answer()).status == 413
    assert await talk.is_closed()


async def test_a_body_without_a_length_is_cut_off_when_it_is_too_large(faces):
    talk = await faces.talk()
    head = "POST /api/list HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    own = "".join(f"{name}: {text}\r\n" for name, text in {**JSON, **BEARER}.items())
    await talk.send(f"{head}{own}\r\n".encode())
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    for _ in range(MOST_JSON // 0x10000 + 1):
        await talk.send(chunk)
    assert (await talk.answer()).status == 413


async def test_a_bug_is_logged_and_not_reported(faces, monkeypatch, caplog):
    async def broken(_controller, _given):
        raise ZeroDivisionError("the secret of the house")

    version = operations.OPERATIONS["version"]._replace(run=broken)
    monkeypatch.setitem(operations.OPERATIONS, "version", version)
    with caplog.at_level(logging.ERROR):
        answer = await faces.call("version")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert answer.error["code"] == ExitCode.BUG
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.UsageError, 400),
        (errors.ImageMissingError, 404),
        (errors.InputFileError, 422),
        (errors.HypervisorError, 409),
        (errors.HypervisorMissingError, 503),
        (errors.GuestDiedError, 502),
        (errors.GuestHungError, 504),
        (errors.BusError, 503),
        (errors.HostDiskFullError, 507),
        (errors.HostError, 409),
        (ValueError, 500),
    ],
)
def test_each_error_has_a_status(kind, status):
    assert error_answer(kind("it did not work")).status_code == status


async def test_the_openapi_document_is_right_and_has_everything(faces):
    document = (await faces.ask("GET", "/api/openapi.json", BEARER)).json
    validate(document)
    posts = {path for path, methods in document["paths"].items() if "post" in methods}
    assert {f"/api/{name}" for name in operations.OPERATIONS} <= posts
    for name, operation in operations.OPERATIONS.items():
        asked = document["paths"][f"/api/{name}"]["post"]["requestBody"]
        schema = asked["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == {one.name for one in operation.parameters}
        required = [one.name for one in operation.parameters if one.is_required]
        assert schema.get("required", []) == required
    assert document["paths"]["/api/files"].keys() == {"get", "put"}


async def test_an_answer_of_every_operation_is_json(faces):
    await faces.add_guest("g1")
    for name, operation in operations.OPERATIONS.items():
        if not operation.changes:
            given = {one.name: "g1" for one in operation.parameters if one.is_required}
            answer = await faces.call(name, **given)
            assert set(answer.json) in ({"result"}, {"error"})
            assert answer.headers["content-type"] == "application/json"
            json.dumps(answer.json, allow_nan=False)
