"""What must hold after a hostile tree was written into one directory."""

import os
from pathlib import Path


def check_contained(directory: Path, tree: str = "tree") -> None:
    """Check that nothing was written but `inside/tree`, and no link leads out of that."""
    assert (directory / "bystander").read_bytes() == b"untouched"
    assert set(os.listdir(directory / "inside")) <= {tree}
    for location, names, files in os.walk(directory / "inside"):
        for name in (*names, *files):
            # Not Path.resolve, which raises where a link leads to itself.
            real = Path(os.path.realpath(Path(location) / name))
            assert real.is_relative_to(directory / "inside" / tree)
