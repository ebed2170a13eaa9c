"""Whether this host tells how a process has ended that is no child of ours."""

import platform
import re

_RELEASE = re.match(r"(\d+)\.(\d+)", platform.release())
TELLS_EXITS = _RELEASE is not None and (int(_RELEASE[1]), int(_RELEASE[2])) >= (6, 15)
"""Linux does since 6.15."""
