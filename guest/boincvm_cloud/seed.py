"""What a seed says: cloud-init's data source NoCloud, as far as JSON or a script express it.

YAML needs a library that is not in images. JSON is YAML too, so one seed serves both. A key that is
not known is reported and does nothing, as cloud-init has it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re

from boincvm_cloud.disc import Disc, DiscError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LABEL = "cidata"
_META_DATA, _USER_DATA = "meta-data", "user-data"
_LARGEST_META_DATA = 64 << 10
_LARGEST_USER_DATA = 16 << 20
_MOST = 1000
"""Files, and commands."""
_DEPTH = 20
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_INSTANCE = re.compile(r"[\x21-\x7e]{1,256}")
_LINE = re.compile(r"""([a-z][a-z0-9_-]*):[ \t]+(["']?)([^"'#{}\[\]&*!|>%@`]*)\2[ \t]*""")
"""The only YAML that is read: `key: value`, in meta-data."""
_META_KEYS = frozenset(("instance-id", "local-hostname"))
_KEYS = frozenset(("hostname", "power_state", "runcmd", "write_files"))
_FILE_KEYS = frozenset(("path", "content", "encoding", "permissions"))
_BASE64 = ("b64", "base64")
_PLAIN = ("", "text/plain")
_CLOUD_CONFIG = b"#cloud-config"


class SeedError(ValueError):
    """The seed is not one that can be read; the text says why."""


class SeedFile:
    """A file to be written."""

    def __init__(self, path: str, content: bytes, mode: int) -> None:
        self.path = path
        self.content = content
        self.mode = mode


class Seed:
    """What a machine is to be."""

    def __init__(self) -> None:
        self.instance = "nocloud"
        """Names the machine: files and commands are for a new one only."""
        self.host_name = ""
        self.files: list[SeedFile] = []
        self.commands: list[list[str]] = []
        """To be run one after the other."""
        self.script = b""
        """To be run after them; it begins with `#!`."""
        self.is_powered_off = False
        """The machine ends when the commands have."""


def read_seed(disc: Disc, warn: Callable[[str], None]) -> Seed:
    """Read the seed on a disc; `warn` is called with what is ignored.

    Raises SeedError, DiscError, OSError.
    """
    meta_data = disc.content(_META_DATA, _LARGEST_META_DATA)
    user_data = disc.content(_USER_DATA, _LARGEST_USER_DATA)
    if meta_data is None:
        raise SeedError(f"it has no {_META_DATA}")
    seed = Seed()
    for name in disc.names:
        if name not in (_META_DATA, _USER_DATA):
            warn(f"the seed's file {name[:80]!a} is ignored")
    _read_meta_data(seed, meta_data, warn)
    _read_user_data(seed, user_data or b"", warn)
    return seed


def find_disc(devices: str = "/dev", blocks: str = "/sys/class/block") -> tuple[str, Disc] | None:
    """Return the first disk that has a seed's label and its name, None if there is none."""
    try:
        names = sorted(os.listdir(blocks))
    except OSError:
        return None
    for name in names:
        try:
            file = os.open(f"{devices}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:  # no disc in the drive
            continue
        try:
            disc = Disc(file)
        except (DiscError, OSError):
            os.close(file)
            continue
        if disc.label.lower() == LABEL:
            return name, disc  # its descriptor stays open as long as the machine runs
        os.close(file)
    return None


def _read_meta_data(seed: Seed, content: bytes, warn: Callable[[str], None]) -> None:
    table = _table(content) if content.lstrip().startswith(b"{") else _lines(content)
    _warn_of_others(table, _META_KEYS, _META_DATA, warn)
    instance = table.get("instance-id", seed.instance)
    if not isinstance(instance, str) or not _INSTANCE.fullmatch(instance):
        raise SeedError("its instance-id has not 1 to 256 printable characters without spaces")
    seed.instance = instance
    seed.host_name = _host_name(table.get("local-hostname", ""))


def _host_name(value: object) -> str:
    if not isinstance(value, str) or (value and not _HOST_NAME.fullmatch(value)):
        raise SeedError("its host name has not up to 64 of A-Z a-z 0-9 . -")
    return value


def _lines(content: bytes) -> dict[str, object]:
    """Read lines like `key: value`."""
    table: dict[str, object] = {}
    for number, line in enumerate(_text(content).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#") or line == "---":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise SeedError(
                f"line {number} of its {_META_DATA} is YAML that is not read here: write JSON"
            )
        table[match[1]] = match[3].strip()
    return table


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SeedError("it is not UTF-8") from None


def _table(content: bytes) -> dict[str, object]:
    """Read a JSON object."""
    try:
        table = json.loads(_text(content))
    except RecursionError:
        raise SeedError("its JSON is too deep") from None
    except ValueError as error:
        raise SeedError(f"its JSON cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise SeedError("its JSON is no object")
    return table


def _warn_of_others(
    table: dict[str, object], known: frozenset[str], where: str, warn: Callable[[str], None]
) -> None:
    for key in table:
        if key not in known:
            warn(f"{key[:80]!a} in the seed's {where} is ignored")


def _read_user_data(seed: Seed, content: bytes, warn: Callable[[str], None]) -> None:
    if content.startswith(b"#!"):
        seed.script = content
        return
    if not content.strip():
        return
    line, _, rest = content.partition(b"\n")
    if line.strip() != _CLOUD_CONFIG:
        raise SeedError(
            f"its {_USER_DATA} is neither a script that begins with #! nor #cloud-config"
        )
    if not rest.lstrip().startswith(b"{"):
        raise SeedError(f"its {_USER_DATA} is YAML: write JSON, which is YAML too")
    table = _table(rest)
    _warn_of_others(table, _KEYS, _USER_DATA, warn)
    seed.host_name = _host_name(table.get("hostname", seed.host_name))
    seed.files = [_file(entry, warn) for entry in _list(table, "write_files")]
    seed.commands = [_command(entry) for entry in _list(table, "runcmd")]
    state = table.get("power_state", {})
    if not isinstance(state, dict):
        raise SeedError("its power_state is no object")
    if state:
        seed.is_powered_off = state.get("mode") == "poweroff"
        if not seed.is_powered_off:
            warn("power_state in the seed has another mode than poweroff, and is ignored")


def _list(table: dict[str, object], key: str) -> list[object]:
    value = table.get(key, [])
    if not isinstance(value, list) or len(value) > _MOST:
        raise SeedError(f"its {key} is no list of at most {_MOST}")
    return value


def _command(entry: object) -> list[str]:
    """Return a command, which as a text is one of the shell."""
    if isinstance(entry, str):
        entry = ["/bin/sh", "-c", entry]
    words = [word for word in entry if isinstance(word, str)] if isinstance(entry, list) else []
    if not words or words != entry or not words[0] or any("\0" in word for word in words):
        raise SeedError("a command in its runcmd is neither a text nor a list of texts")
    return words


def _file(entry: object, warn: Callable[[str], None]) -> SeedFile:
    if not isinstance(entry, dict):
        raise SeedError("a file in its write_files is no object")
    _warn_of_others(entry, _FILE_KEYS, "write_files", warn)
    path, content = entry.get("path"), entry.get("content", "")
    encoding, permissions = entry.get("encoding", ""), entry.get("permissions", "0644")
    if not isinstance(path, str) or not _is_path(path):
        raise SeedError("a file in its write_files has no absolute path")
    if not isinstance(content, str):
        raise SeedError(f"the content of {path} is no text")
    if not isinstance(permissions, str) or not re.fullmatch("0?[0-7]{3,4}", permissions):
        raise SeedError(f"the permissions of {path} are no octal number")
    if encoding in _BASE64:
        try:
            data = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise SeedError(f"the content of {path} is not base64") from None
    elif encoding in _PLAIN:
        data = content.encode(errors="surrogatepass")
    else:
        raise SeedError(f"the encoding of {path} is neither b64 nor text/plain")
    return SeedFile(path, data, int(permissions, 8))


def _is_path(path: str) -> bool:
    parts = path.split("/")
    return (
        path.isprintable()
        and not parts[0]
        and all(parts[1:])
        and not {".", ".."} & set(parts)
        and len(parts) <= _DEPTH
        and len(path) <= 1000
    )
