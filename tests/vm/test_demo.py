"""The main job: a real, unmodified program on real input in a real machine."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_gmp_ecm_factors_a_number(tmp_path: Path) -> None:
    example = tmp_path / "ecm"
    shutil.copytree(CHECKOUT / "examples/ecm", example, ignore=shutil.ignore_patterns("*.py"))
    (example / "factors.txt").unlink(missing_ok=True)
    before = {path.name: path.read_bytes() for path in example.iterdir()}
    boincvm = Path(sys.executable).with_name("boincvm")
    done = subprocess.run(
        [boincvm, "run", "--image", "sci", example / "job.toml"],
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    factors = [int(word) for word in (example / "factors.txt").read_text().split()]
    assert len(factors) > 1
    assert 1 not in factors
    assert math.prod(factors) == int(before["number.txt"])
    (example / "factors.txt").unlink()
    assert {path.name: path.read_bytes() for path in example.iterdir()} == before
