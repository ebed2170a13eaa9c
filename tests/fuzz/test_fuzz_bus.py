"""Run atheris for some seconds, starting from valid frames; see fuzz_bus.py for longer runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.bus.stomp import encode

SECONDS = 10
SEEDS = (
    encode("SEND", {"destination": "/topic/a.b", "receipt": "1", "x": "a:b\n\\"}, b"body"),
    encode("SUBSCRIBE", {"destination": "/queue/q", "id": "1", "ack": "client"})
    + encode("SEND", {"destination": "/queue/q"}, b"1")
    + encode("NACK", {"id": "1", "message-id": "1"}),
    encode("SUBSCRIBE", {"destination": "/topic/a.**", "id": "1"})
    + encode("SEND", {"destination": "/topic/a.b"})
    + encode("UNSUBSCRIBE", {"id": "1"}),
    encode("BEGIN", {"transaction": "t"})
    + encode("SEND", {"destination": "/topic/a", "transaction": "t"})
    + encode("COMMIT", {"transaction": "t"})
    + encode("DISCONNECT", {"receipt": "2"}),
    encode("CONNECT", {"accept-version": "1.2", "login": "me", "passcode": "x"}),
)


@pytest.mark.timeout(120)
def test_the_codec_and_the_broker_bear_anything(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        for kind in range(4):
            (corpus / f"{number}-{kind}").write_bytes(bytes([kind | 32]) + seed)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz_bus.py"), corpus,
         f"-max_total_time={SECONDS}", "-max_len=4000", "-timeout=20",
         f"-artifact_prefix={tmp_path}/"],
        capture_output=True, text=True, timeout=100, check=False,
        env={name: word for name, word in os.environ.items() if not name.startswith("COVERAGE")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None, done.stderr[-3000:]
    assert int(runs[1]) > 500
