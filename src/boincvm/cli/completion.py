"""`boincvm completion`: a completion script for the shell, made from the parsers themselves."""

import argparse

from boincvm.cli import controller_options
from boincvm.errors import HostError

_EXAMPLES = """\
examples:
  boincvm completion bash > ~/.local/share/bash-completion/completions/boincvm
  boincvm completion zsh > ~/.zfunc/_boincvm
"""

_LIMIT = 5
"""Seconds that a controller may take to list its machines."""
# Guest names never become shell syntax: those with other characters are left out.
_BASH = f"""
{controller_options.MACHINES}() {{
  local id
  timeout {_LIMIT} boincvm ls --quiet 2>/dev/null | while IFS= read -r id; do
    [[ $id == "$1"* && $id != *[!A-Za-z0-9._-]* ]] && printf '%s\\n' "$id"
  done
}}
{controller_options.MACHINES_OR_DIRECTORIES}() {{
  {controller_options.MACHINES} "$1"
  compgen -d -- "$1"
}}
{controller_options.FILES_OR_MACHINES}() {{
  {controller_options.MACHINES} "$1" | while IFS= read -r id; do printf '%s:\\n' "$id"; done
  compgen -f -- "$1"
}}
"""
# A path follows the colon after a machine's name.
_BASH_END = """
_boincvm() {
  _shtab_boincvm "$@"
  if [[ ${#COMPREPLY[@]} = 1 && ${COMPREPLY[0]} == *: ]]; then
    compopt -o nospace 2>/dev/null || :
  fi
}

complete -o bashdefault -F _boincvm boincvm
"""
_ZSH = f"""
_boincvm_ids() {{
  ids=(${{(f)"$(timeout {_LIMIT} boincvm ls --quiet 2>/dev/null)"}})
  ids=(${{ids:#*[^A-Za-z0-9._-]*}})
}}
{controller_options.MACHINES}() {{
  local -a ids
  _boincvm_ids
  compadd "$@" -a ids
}}
{controller_options.MACHINES_OR_DIRECTORIES}() {{
  {controller_options.MACHINES} "$@"
  _files -/ "$@"
}}
{controller_options.FILES_OR_MACHINES}() {{
  local -a ids
  _boincvm_ids
  compadd -S : "$@" -a ids
  _files "$@"
}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EXAMPLES
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")


def run(arguments: argparse.Namespace) -> int:
    """Print the script. Raises HostError if shtab, which makes it, is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise HostError(
            "shell completion needs the Python package shtab, which is not installed",
            hint="pip install 'boincvm[completion]'",
        ) from error
    from boincvm.cli.verbs import full_parser

    is_bash = arguments.shell == "bash"
    preamble = _BASH if is_bash else _ZSH
    print(shtab.complete(full_parser(), shell=arguments.shell, preamble=preamble))
    if is_bash:
        print(_BASH_END)
    return 0
