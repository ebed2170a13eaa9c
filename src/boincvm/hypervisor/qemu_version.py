"""Which QEMU more than one driver can use."""

import re

from boincvm.hypervisor.doctor import last_line, output_of

OLDEST = (7, 2)


def read_version(path: str, install_hint: str) -> tuple[str, str, str]:
    """Return the version of the QEMU `path`, and if that cannot be used: why, and what to do."""
    status, text = output_of(path, "--version")
    found = re.search(r"version (\d+)\.(\d+)(?:\.\d+)*", text)
    if status != 0 or found is None:
        return "", f"{path} does not report its version: {last_line(text)}", install_hint
    version = found[0].removeprefix("version ")
    if (int(found[1]), int(found[2])) < OLDEST:
        remedy = f"install QEMU {'.'.join(map(str, OLDEST))} or newer"
        return version, f"{path}, version {version}, is too old", remedy
    return version, "", ""
