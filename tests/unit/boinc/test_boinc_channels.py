"""The channels' protocol and messages, from both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.boinc.channels import APP_STATUS, CONTROL, LONGEST_MESSAGE, SEGMENT_SIZE, Channel
from boincvm.boinc.messages import (
    Control,
    Heartbeat,
    Status,
    decode_control,
    decode_graphics_reply,
    decode_heartbeat,
    decode_status,
    encode_heartbeat,
    encode_remote_desktop_address,
    encode_status,
    encode_web_graphics_url,
)
from boincvm.boinc.outbox import Outbox

amounts = st.floats(0, 1e15).map(lambda x: float(f"{x:e}"))


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(SEGMENT_SIZE))


def test_a_message_lies_where_the_client_looks_for_it(memory: memoryview) -> None:
    assert Channel(memory, APP_STATUS).send("<a/>")
    assert bytes(memory[5120:5126]) == b"\x01<a/>\0"
    assert memory[5120:].tobytes().count(0) == 3 * 1024 - 5


def test_an_unread_message_stays(memory: memoryview) -> None:
    sender, reader = Channel(memory, CONTROL), Channel(memory, CONTROL)
    assert sender.send("first, and longer")
    assert not sender.send("second")
    assert reader.receive() == "first, and longer"
    assert reader.receive() is None
    assert sender.send("third")
    assert reader.receive() == "third"


def test_the_last_word_replaces_what_was_not_read(memory: memoryview) -> None:
    channel = Channel(memory, CONTROL)
    channel.send("first")
    channel.overwrite("2nd")
    assert channel.receive() == "2nd"


@pytest.mark.parametrize("text", ["x" * (LONGEST_MESSAGE + 1), "a\0b", "ü" * 512])
def test_what_does_not_fit_is_refused(memory: memoryview, text: str) -> None:
    with pytest.raises(ValueError, match="a message of"):
        Channel(memory, CONTROL).send(text)
    assert memory.tobytes() == bytes(SEGMENT_SIZE)


def test_the_longest_message_fits(memory: memoryview) -> None:
    channel = Channel(memory, 7)
    assert channel.send("x" * LONGEST_MESSAGE)
    assert channel.receive() == "x" * LONGEST_MESSAGE


@given(st.binary(min_size=1024, max_size=1024))
def test_whatever_lies_there_is_read_and_cleared(data: bytes) -> None:
    memory = memoryview(bytearray(data * 8))
    text = Channel(memory, CONTROL).receive()
    assert (text is None) == (data[0] == 0)
    assert memory[0] == 0
    assert memory[1:].tobytes() == (data * 8)[1:]
    decode_control(text or "")
    decode_status(text or "")
    decode_heartbeat(text or "")
    decode_graphics_reply(text or "")


@given(
    st.text() | st.lists(st.sampled_from(["<wss>", "1e999", "nan", "</wss>", "<a/>"])).map("".join)
)
def test_garbage_is_read_as_something_finite(text: str) -> None:
    heartbeat = decode_heartbeat(text)
    assert abs(heartbeat.working_set) < float("inf")


def test_a_status_as_boinc_writes_it() -> None:
    text = encode_status(Status(12.5, 10, 0.25, other_pid=77, resident=4096, want_network=True))
    assert text == (
        "<current_cpu_time>1.250000e+01</current_cpu_time>\n"
        "<checkpoint_cpu_time>1.000000e+01</checkpoint_cpu_time>\n"
        "<fraction_done>2.500000e-01</fraction_done>\n"
        "<other_pid>77</other_pid>\n"
        "<wss>4096.000000</wss>\n"
        "<want_network>1</want_network>\n"
    )


def test_each_status_says_whether_the_network_is_wanted() -> None:
    assert encode_status(Status(0, 0)).endswith("<want_network>0</want_network>\n")


@given(
    st.builds(
        Status,
        cpu_time=amounts,
        checkpoint_cpu_time=amounts,
        fraction_done=st.floats(0, 1).map(lambda x: float(f"{x:e}")),
        other_pid=st.none() | st.integers(1, 2**31 - 1),
        resident=st.none() | st.integers(0, 2**50),
        floating_operations=st.none() | amounts,
        integer_operations=st.none() | amounts,
        want_network=st.booleans(),
    )
)
def test_a_status_comes_back_as_it_was(status: Status) -> None:
    text = encode_status(status)
    assert decode_status(text) == status
    assert len(text) < LONGEST_MESSAGE


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_a_sum_gone_wrong_is_sent_as_nothing(wrong: float) -> None:
    assert decode_status(encode_status(Status(wrong, wrong, wrong))) == Status(0, 0, 0)


def test_both_cpu_times_are_always_there() -> None:
    assert decode_status("<current_cpu_time>5</current_cpu_time>") == Status(5, 0, 0)


@given(st.builds(Heartbeat, amounts, amounts, st.booleans()))
def test_a_heartbeat_comes_back_as_it_was(heartbeat: Heartbeat) -> None:
    assert decode_heartbeat(encode_heartbeat(heartbeat)) == heartbeat


def test_several_words_in_one_message() -> None:
    assert decode_control("<quit/><suspend/>junk") == [Control.SUSPEND, Control.QUIT]


def test_addresses() -> None:
    text = encode_web_graphics_url("http://localhost:80/?a=1") + encode_remote_desktop_address(
        "h:1"
    )
    assert decode_graphics_reply(text) == ("http://localhost:80/?a=1", "h:1")


@pytest.mark.parametrize("address", ["a\nb", "</web_graphics_url>", "x" * 256, "\0"])
def test_an_address_that_cannot_be_said(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        encode_web_graphics_url(address)


def test_the_outbox_sends_the_newest_when_there_is_room(memory: memoryview) -> None:
    outbox, client = Outbox(memory), Channel(memory, APP_STATUS)
    for text in ("1", "2", "3"):
        outbox.status = text
        waiting = outbox.send()
    assert waiting == (APP_STATUS,)
    assert client.receive() == "1"
    assert outbox.send() == ()
    assert client.receive() == "3"


def test_the_last_words_of_the_outbox_lose_no_flag(memory: memoryview) -> None:
    outbox = Outbox(memory)
    outbox.flag("<one/>")
    outbox.send()
    outbox.flag("<two/>")
    outbox.status = "old"
    outbox.send()
    outbox.status = "new"
    outbox.send_last()
    assert Channel(memory, APP_STATUS).receive() == "new"
    flags = Channel(memory, 6).receive() or ""
    assert "<one/>" in flags
    assert "<two/>" in flags
