"""The mirror of Debian's archive that this host's apt uses."""

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool

_HINT = "give one: --mirror URL"


def host_mirror() -> str:
    """Return the address of the mirror, without a slash at its end. Raises ImageBuildError."""
    targets = run_tool(
        ["apt-get", "indextargets", "Created-By: Packages", "Label: Debian",
         "--format", "$(REPO_URI)"]
    )  # fmt: skip
    mirrors = targets.decode("utf-8", "replace").split()
    if not mirrors:
        raise ImageBuildError("this host's apt uses no mirror of Debian's archive", hint=_HINT)
    return mirrors[0].rstrip("/")
