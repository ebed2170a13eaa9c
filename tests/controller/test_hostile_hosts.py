"""Invited hosts that lie, and a hostile inviter."""

import asyncio
import json
from pathlib import Path

import pytest

from boincvm.controller.guests import other_hosts
from boincvm.controller.guests.requests import Requester
from boincvm.controller.protocol.host_machines import HostMachines, controller_id
from boincvm.controller.protocol.requests import Answer, Ask, AskTaken
from boincvm.errors import BoincvmError, GuestProtocolError, UsageError
from support.controller.controlled import Controlled
from support.controller.faces import bounded
from support.controller.faked import fake_machines  # noqa: F401 - a fixture
from support.controller.invited import FakeHost, invite, logged_in
from support.controller.two_hosts import (
    invited,
    inviting,
    page,
    state,
    two,
    until_state,
    until_there,
)

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("fake_machines", "short_pause")]


# The inviter is hostile.


async def asked_for(asked: Controlled, verb: str, fields: dict[str, object], data: bytes) -> str:
    """Return the error with which the controller of `b` answers a request."""
    host = asked.controller.hub.other_hosts.get("b")
    assert host is not None
    requester = asked.controller.hub.requester
    with pytest.raises(BoincvmError) as caught:
        await bounded(requester.ask(host.controller, verb, fields, data, within=30))
    return caught.value.message


async def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _):
        await second("create", name="b.1", memory="256M")
        mine = {"vm": "b.1"}
        for verb, fields, data, message in (
            ("machines", {"after": 1}, b"", "begins after an id"),
            ("dance", mine, b"", "does not know the request"),
            ("start", {}, b"", "expected a machine's name"),
            ("start", {"vm": "all"}, b"", "address on the bus"),
            ("start", {"vm": "b.*"}, b"", "expected a machine's name"),
            ("start", {"vm": "b"}, b"", "not a machine of the host b"),
            ("start", {"vm": "b.2"}, b"", "not a machine of this host"),
            ("start", mine, b"{", "not JSON"),
            ("start", mine, b"[" * 100_000, "not JSON"),
            ("start", mine, b"[]", "not a JSON object"),
            ("start", mine, b'{"x": 1}', "unknown parameter"),
            ("remove", mine, b'{"force": "yes"}', "expected true or false"),
            ("snapshot_restore", mine, b'{"name": "../x"}', "no snapshot ../x"),
            ("snapshot_remove", mine, b"{}", "name is missing"),
            ("create", {"vm": "a.1"}, b"{}", "not a machine of the host b"),
            ("create", {"vm": "b.2"}, b'{"memory": 1}', "expected a text"),
            ("create", {"vm": "b.2"}, b'{"image": "/etc/passwd"}', "image"),
            ("clone", {"vm": "b.2"}, b'{"source": "a.1"}', "not a machine of the host b"),
            ("clone", {"vm": "b.2"}, b'{"source": "b.9"}', "not a machine of this host"),
            ("logs", mine, b'{"lines": -1}', "expected a whole number"),
        ):
            assert message in await asked_for(first, verb, dict(fields), data), (verb, data)
        assert [machine.id for machine in second.controller.machines.all()] == ["b.1"]
        assert state(second, "b.1") == "powered_off"


async def test_only_the_inviting_controller_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host that was invited by the same name may send to the same address."""
    answered = []
    handle = Requester.handle

    def record(self: Requester, guest_id: str, message: AskTaken | Answer) -> None:
        answered.append(message.ask_id)
        handle(self, guest_id, message)

    monkeypatch.setattr(Requester, "handle", record)
    async with two(tmp_path) as (first, second, location):
        await second("create", name="b.1", memory="256M")
        await until_state(first, b_1="powered_off")
        host = first.controller.hub.other_hosts.get("b")
        assert host is not None
        peer = await logged_in(location)
        ask = Ask("1", host.controller.instance, "remove", {"vm": "b.1"}).encode()
        peer.send("SEND", ask, destination="/topic/guest.b.@controller", receipt="r")
        assert (await peer.receive()).command == "RECEIPT"
        await peer.close()
        assert (await first.outcome("stop", "b.1"))["state"] == "powered_off"  # it came later
        assert answered
        assert "1" not in answered
        assert [machine.id for machine in second.controller.machines.all()] == ["b.1"]


async def test_what_ends_an_invited_controller_is_reported_as_it_is(tmp_path: Path) -> None:
    async with inviting(tmp_path) as first:
        location = await invite(first.controller)
        with pytest.raises(UsageError, match="enough"):
            async with invited(tmp_path, location):
                raise UsageError("enough")


# The invited host is hostile.


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ([page("b.1", "a.1")], "a.1 is not a machine of the host b"),
        ([page("bb.1")], "bb.1 is not a machine of the host b"),
        ([page("b")], "b is not a machine of the host b"),
        ([page("b.2", "b.1")], "not in order"),
        ([page("b.1"), page("b.1")], "not in order"),
        ([page("b.1"), b""] * 3, "more than"),
        ([page(*(f"b.{number:05}" for number in range(at, at + 500)))
          for at in range(0, 10_000, 500)], "more than 1000 machines"),
        ([b"{"], "not valid JSON"),
        ([b"[" * 100_000], "not valid JSON"),
        ([page("b.1").replace(b"268435456", b"-1")], "invalid"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_a_host_that_lies(pages: list[bytes], why: str, tmp_path: Path) -> None:
    async with inviting(tmp_path) as first:
        await first("create", name="a.1", memory="256M")
        async with FakeHost.open(await invite(first.controller), *pages) as host:
            host.announce()
            await first.until_event("trouble", why)
            assert [one["id"] for one in (await first("list"))["vms"]] == ["a.1"]
            assert len(host.asked) <= 3
            host.pages = [page("b.1")]  # it is believed again when it tells the truth
            host.announce()
            await until_state(first, b_1="powered_off")


async def test_a_host_that_answers_for_another_machine(tmp_path: Path) -> None:
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1", "b.2")) as host,
    ):
        host.announce()
        await until_state(first, b_1="powered_off")
        for described in (page("b.2"), page("a.1"), b"\xff"):
            host.answers["start"] = described
            assert "error" in await first.outcome("start", "b.1")
        host.answers["start"] = page("b.1").replace(b"powered_off", b"starting")
        assert await first.outcome("start", "b.1") == {"state": "running"}
        assert state(first, "b.1") == "starting"
        assert [one["id"] for one in (await first("list"))["vms"]] == ["b.1", "b.2"]


async def test_an_error_that_a_host_reports_is_not_a_lie(tmp_path: Path) -> None:
    """Its machines are still known, and its list is asked for again."""
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        host.announce()
        await until_state(first, b_1="powered_off")
        host.pages = [GuestProtocolError("the answer is no longer kept")]
        host.announce()
        await bounded(host.has_failed.wait())
        host.answers["start"] = page("b.1")
        await first.outcome("start", "b.1")  # it was answered later than the list
        host.pages = [page("b.1", "b.2")]
        host.announce()
        await until_state(first, b_2="powered_off")
        kinds = {event.kind for event in first.controller.events.list_after(0)}
        assert not kinds & {"trouble", "vm_removed"}


async def test_a_late_answer_does_not_replace_a_newer_list(tmp_path: Path) -> None:
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        host.announce()
        await until_state(first, b_1="powered_off")
        host.answers["start"] = page("b.1")
        host.results["start"] = {"state": "running", "revision": 1}
        host.may_answer.clear()
        starts = asyncio.ensure_future(first.outcome("start", "b.1"))
        host.pages = [page("b.1").replace(b"powered_off", b"saved")]
        host.announce()
        await until_state(first, b_1="saved")
        host.may_answer.set()
        assert await bounded(starts) == {"state": "running"}
        assert state(first, "b.1") == "saved"
        host.results["start"] = {"state": "running", "revision": 2}
        await first.outcome("start", "b.1")
        assert state(first, "b.1") == "powered_off"


async def test_an_answer_says_how_new_it_is(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _):
        await second("create", name="b.1", memory="256M")
        host = first.controller.hub.other_hosts.get("b")
        assert host is not None
        ask = first.controller.hub.requester.ask
        before = await bounded(ask(host.controller, "stop", {"vm": "b.1"}))
        await second("create", name="b.2", memory="256M")
        after = await bounded(ask(host.controller, "stop", {"vm": "b.1"}))
        assert 0 < before.table["revision"] < after.table["revision"]  # type: ignore[operator]


async def test_machines_of_a_full_list_are_still_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_hosts, "MOST_OF_ACCOUNT", 1)
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        host.announce()
        await until_state(first, b_1="powered_off")
        host.answers["start"] = page("b.1").replace(b"powered_off", b"saved")
        await first.outcome("start", "b.1")
        assert state(first, "b.1") == "saved"
        host.answers["create"] = page("b.2")
        with pytest.raises(UsageError, match=r"no machine 'b\.2'"):
            await first("create", name="b.2", memory="256M")
        assert [one["id"] for one in (await first("list"))["vms"]] == ["b.1"]


async def test_a_result_that_cannot_be_passed_on_is_an_error(tmp_path: Path) -> None:
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        await first("create", name="a.1", memory="256M")
        host.announce()
        await until_state(first, b_1="powered_off")
        host.answers["stop"] = page("b.1")
        for value in (float("nan"), float("inf"), "\ud800", {"\udfff": 1}, deep):
            host.results["stop"] = {"state": value}
            outcomes = (await first("stop", vms="*.1"))["outcomes"]
            json.dumps(outcomes, ensure_ascii=False, allow_nan=False).encode()
            assert outcomes["a.1"] == {"state": "powered_off"}
            assert "the result of b.1 is no valid JSON" in outcomes["b.1"]["error"]["message"]


async def test_its_texts_cannot_control_a_terminal(tmp_path: Path) -> None:
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        host.announce()
        await until_state(first, b_1="powered_off")
        host.answers["logs"] = b"a\x1b[2J\tb\r\n\xc2\x9bc"
        assert (await first("logs", vm="b.1"))["lines"] == ["a[2J\tb", "c"]
        host.results["snapshot_take"] = {"snapshot": "one\x1b[2J" + 1000 * "x"}
        await first.outcome("snapshot_take", "b.1")
        event = first.controller.events.list_after(0)[-1]
        assert event.kind == "snapshot"
        assert event.text.isprintable()
        assert len(event.text) < 100


async def test_nobody_poses_as_the_controller_of_a_host(tmp_path: Path) -> None:
    async with inviting(tmp_path) as first:
        other = await invite(first.controller, "bb")
        async with (
            FakeHost.open(await invite(first.controller), page("b.1")) as host,
            FakeHost.open(other, page("bb.1")) as last,
        ):
            for topic in ("host.b.1", "host.b", "host.b.1.@controller"):
                host.announce(topic=f"/topic/{topic}")
            last.announce()
            await until_state(first, bb_1="powered_off")
            assert first.controller.hub.counts["invalid"] == 3
            assert first.controller.hub.other_hosts.get("b") is None
            host.announce(leaves=True)
            host.announce()
            host.announce(leaves=True, instance="another")
            await until_state(first, b_1="powered_off")


async def test_a_list_that_changes_all_the_time_is_not_read_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_hosts, "PAUSE", 3600)
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        for _ in range(50):
            host.announce()
        await until_state(first, b_1="powered_off")
        for _ in range(50):
            host.announce()
        await first.outcome("start", "b.1")
        assert [verb for verb, _ in host.asked] == ["machines", "start"]


async def test_a_list_that_changes_just_when_it_was_read_is_read_again(tmp_path: Path) -> None:
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        host.announce()
        await until_there(first)
        hosts = first.controller.hub.other_hosts
        known = hosts.get("b")
        assert known is not None
        reads = known.work
        assert reads is not None
        async with asyncio.timeout(30):
            while not reads.done():  # noqa: ASYNC110 - Event.wait would come too late
                await asyncio.sleep(0)
        host.pages = [page("b.1", "b.2")]
        hosts.handle(controller_id("b"), "b", HostMachines("1", 2))
        await until_state(first, b_2="powered_off")
