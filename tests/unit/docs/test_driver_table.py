"""Check that the table of drivers in docs/drivers.md agrees with the drivers' declarations.

`python tests/unit/docs/test_driver_table.py` writes it anew.
"""

from pathlib import Path

from boincvm.hypervisor.registry import BUILT_IN, find_driver
from boincvm.hypervisor.verdict import Ability

PAGE = Path(__file__).parents[3] / "docs/drivers.md"
BEGIN, END = "<!-- drivers -->\n", "<!-- end of drivers -->"
COLUMNS = {
    Ability.CHECKPOINT: "checkpoints",
    Ability.GOLDEN: "golden snapshots",
    Ability.NETWORK: "network",
    Ability.PORT_FORWARDING: "port forwarding",
    Ability.DISPLAY: "screen",
    Ability.SCREENSHOT: "screenshots",
    Ability.REMOTE_DESKTOP: "remote desktop",
    Ability.BALLOON: "gives memory back",
    Ability.TRANSFER_DISK: "transfer disk",
    Ability.FIRMWARE: "boots any disk",
    Ability.ON_DEMAND: "disk on demand",
    Ability.GPU: "graphics card of the host",
}


def table() -> str:
    heads = ["driver", *COLUMNS.values(), "processors", "images for", "proved by"]
    lines = [heads, ["---"] * len(heads)]
    for name in BUILT_IN:
        package = find_driver(name)
        can, most, architectures = package.abilities
        cells = ["yes" if ability in can else "no" for ability in COLUMNS]
        processors = "as many as the host" if most is None else str(most)
        kinds = ", ".join(sorted(kind.value for kind in architectures))
        proved = package.proved_by or "nothing yet"
        lines.append([f"`{name}`", *cells, processors, kinds, proved])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def test_each_ability_has_a_column() -> None:
    assert set(COLUMNS) == set(Ability)


def test_the_manual_has_what_the_drivers_say() -> None:
    assert PAGE.read_text().partition(BEGIN)[2].partition(END)[0] == table()


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
