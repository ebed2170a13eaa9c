"""Queues: order, fairness, and redelivery."""

from boincvm.bus.queues import MOST_DELIVERIES, Queue, Queued


class Consumer:
    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.delivered: list[Queued] = []

    @property
    def is_ready(self) -> bool:
        return len(self.delivered) < self.room

    def deliver(self, message: Queued) -> None:
        self.delivered.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.delivered]


def message(body: bytes) -> Queued:
    return Queued("/queue/q", {}, body)


def test_they_wait_until_somebody_comes() -> None:
    queue, consumer = Queue(), Consumer()
    for body in (b"1", b"2", b"3"):
        queue.put(message(body))
    assert queue.size == 3
    queue.add(consumer)
    assert consumer.bodies == [b"1", b"2", b"3"]
    assert (queue.size, queue.is_unused) == (0, False)
    queue.remove(consumer)
    assert queue.is_unused


def test_in_turn_and_none_to_who_is_not_ready() -> None:
    queue, first, second = Queue(), Consumer(), Consumer(room=1)
    queue.add(first)
    queue.add(second)
    for number in range(6):
        queue.put(message(b"%d" % number))
    assert first.bodies == [b"0", b"2", b"3", b"4", b"5"]
    assert second.bodies == [b"1"]


def test_what_comes_back_is_first_and_not_for_ever() -> None:
    queue, consumer = Queue(), Consumer()
    queue.put(message(b"1"))
    queue.put(message(b"2"))
    for _ in range(MOST_DELIVERIES):
        consumer = Consumer(room=1)
        queue.add(consumer)
        assert consumer.bodies == [b"1"]
        queue.remove(consumer)
        queue.give_back(consumer.delivered)
    assert [one.body for one in queue.messages] == [b"2"]
    assert (queue.dropped, queue.size) == (1, 1)
