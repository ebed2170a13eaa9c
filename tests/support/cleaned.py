"""What `boincvm doctor --clean` removes in a test that has a cache of its own."""

_IMAGES = ("contents of images", "unfinished images", "unfinished golden snapshots")
"""What is in the data directory, which all tests share: another one may have left some."""
NOTHING = "killed processes have left nothing behind"


def cleaned(output: str) -> list[str]:
    """Return the lines about what was removed, or could not be looked for; not those of images."""
    lines = output.splitlines()
    assert any(line == NOTHING or line.startswith("removed ") for line in lines), output
    return [
        line
        for line in lines
        if line.startswith(("removed ", "looking for "))
        and not any(image in line for image in _IMAGES)
    ]
