#!/usr/bin/python3
"""A minimal application of BOINC, which shows that the rig's client does what it should.

It is independent of boincvm: it implements the memory-mapped channels itself (1024 bytes each: a
flag, then text; 0 is the client's requests, 5 is the application's status). Arguments: the seconds
to run and the exit status.
"""

import mmap
import os
import sys
import time

CHANNEL = 1024
REQUESTS, STATUS = 0, 5 * CHANNEL
PERIOD = 0.05


def send(word: str) -> None:
    with open(os.environ["RIG_WORDS"], "w") as words:  # noqa: PTH123
        words.write(word + "\n")


def receive(memory: mmap.mmap) -> str:
    """Take the client's request, if there is one."""
    if memory[REQUESTS] == 0:
        return ""
    text = bytes(memory[REQUESTS + 1 : REQUESTS + CHANNEL]).partition(b"\0")[0].decode()
    memory[REQUESTS] = 0
    return text


def report(memory: mmap.mmap, fraction: float) -> None:
    if memory[STATUS] == 0:
        cpu = time.process_time()
        text = (
            f"<current_cpu_time>{cpu:e}</current_cpu_time>\n"
            f"<checkpoint_cpu_time>0</checkpoint_cpu_time>\n"
            f"<fraction_done>{fraction:e}</fraction_done>\n"
        )
        memory[STATUS + 1 : STATUS + 2 + len(text)] = text.encode() + b"\0"
        memory[STATUS] = 1


def physical(name: str) -> str:
    """Return the target of a soft link of the slot."""
    with open(name) as file:  # noqa: PTH123
        return file.read().partition("<soft_link>")[2].partition("</soft_link>")[0]


def main() -> int:
    seconds, status = float(sys.argv[1]), int(sys.argv[2])
    with open("boinc_mmap_file", "r+b") as file:  # noqa: PTH123
        memory = mmap.mmap(file.fileno(), 8 * CHANNEL)
    print("the stand-in starts", file=sys.stderr)
    send("started")
    done, is_suspended = 0.0, False
    while done < seconds:
        request = receive(memory)
        for word in ("suspend", "resume", "quit", "abort"):
            if f"<{word}/>" in request:
                send(word)
                is_suspended = word == "suspend"
                if word in ("quit", "abort"):
                    return 0
        time.sleep(PERIOD)
        if not is_suspended:
            done += PERIOD
        report(memory, done / seconds)
    with open(physical("out"), "w") as file:  # noqa: PTH123
        file.write("made by the stand-in\n")
    with open("boinc_finish_called", "w") as file:  # noqa: PTH123
        file.write(f"{status}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
