"""Run by a test in a mount namespace of its own: a machine's job in a slot on a small disk.

    python -m support.full_disk DIRECTORY SIZE

Mounts a tmpfs of SIZE at DIRECTORY and prints how the client sees the task's end, as JSON.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from support.slot import Slot


async def main(directory: Path) -> None:
    async with Slot(directory, period=0.25) as slot:
        # More than fits; zeros are written like any other data.
        slot.machine_job(
            "dd if=/dev/zero of=large bs=1M count=600; sync; echo end",
            "<memory_mb>128</memory_mb>",
        )
        end = await slot.run()
        left = [path.name for path in slot.path.iterdir() if "machine" in path.name]
        found = {"kind": end.kind.name, "text": end.text, "notice": end.notice, "left": left}
        print(json.dumps({**found, "stderr": slot.stderr}))


if __name__ == "__main__":
    location = Path(sys.argv[1])
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={sys.argv[2]}", "tmpfs", str(location)], check=True
    )
    asyncio.run(main(location))
