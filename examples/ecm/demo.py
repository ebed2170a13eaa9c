"""The demo: GMP-ECM, a program never written for this, factors a number in a virtual machine.

Run by `make demo`. Builds the image if there is none, runs job.toml, and checks the factors.
"""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
BOINCVM = Path(sys.executable).with_name("boincvm")


def main() -> int:
    begin = time.monotonic()
    build: list[str | Path] = [
        BOINCVM,
        "image",
        "build",
        "--if-missing",
        "--package",
        "gmp-ecm",
        "sci",
    ]
    subprocess.run(build, check=True)
    image_seconds = time.monotonic() - begin

    number = int((HERE / "number.txt").read_text())
    print(
        f"\nfactoring {number} ({len(str(number))} digits) with GMP-ECM in a virtual machine …",
        flush=True,
    )
    run: list[str | Path] = [BOINCVM, "run", "--json", HERE / "job.toml"]
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=False)
    result = json.loads(done.stdout)
    if "error" in result or done.returncode != 0:
        print(json.dumps(result, indent=2), file=sys.stderr)
        return done.returncode

    factors = [int(word) for word in (HERE / "factors.txt").read_text().split()]
    print(f"factors.txt has come back:  {' * '.join(map(str, factors))}")
    right = math.prod(factors) == number and all(1 < factor < number for factor in factors)
    print(f"multiplied, they give {'the number: right' if right else 'something else: WRONG'}\n")

    print(f"{'image':<10}{image_seconds:8.2f} s")
    for name, seconds in result["phases"].items():
        print(f"{name:<10}{seconds:8.2f} s")
    print(f"{'in all':<10}{time.monotonic() - begin:8.2f} s")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
