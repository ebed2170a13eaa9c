"""A stand-in for Oracle's extension pack, which no test may fetch: its licence is not free.

`VBoxManage` says that the pack is there. For a machine that is to use it, the real one is told to
use the VNC module of Debian's package, of which it only checks that it is there. A machine starts
without a server, because the module is none that is used.
"""

import os
import sys
from pathlib import Path

from support.virtualbox.older import PACK

NAME = "Oracle VM VirtualBox Extension Pack"
_PROGRAM = """\
#!{python} -ISB
import os, sys
given = sys.argv[1:]
if given == ["list", "extpacks"]:
    sys.exit(print({packs!r}, end=""))
os.execv({real!r}, [{real!r}, *("VNC" if word == {name!r} else word for word in given)])
"""

_HEADLESS_PROGRAM = """\
#!{python} -ISB
import os, sys
given = ["off" if word == "config" else word for word in sys.argv[1:]]
os.execv({real!r}, [{real!r}, *given])
"""


def with_extension_pack(directory: Path, real: Path) -> str:
    """Write its programs to `directory`, over the real ones in `real`; return a PATH."""
    directory.mkdir()
    for name, text in (("VBoxManage", _PROGRAM), ("VBoxHeadless", _HEADLESS_PROGRAM)):
        program = directory / name
        values = {"packs": PACK, "real": str(real / name), "name": NAME}
        program.write_text(text.format(python=sys.executable, **values))
        program.chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"
