"""`boincvm completion`: a script for the shell, made from the parsers themselves."""

import argparse

from boincvm.errors import HostError

_EXAMPLES = """\
examples:
  boincvm completion bash > ~/.local/share/bash-completion/completions/boincvm
  boincvm completion zsh > ~/.zfunc/_boincvm
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EXAMPLES
    parser.add_argument("shell", choices=("bash", "zsh"), help="whose completion")


def run(arguments: argparse.Namespace) -> int:
    """Print the script. Raises HostError where shtab, which makes it, is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise HostError(
            "shell completion needs the Python package shtab, which is not installed",
            hint="pip install 'boincvm[completion]'",
        ) from error
    from boincvm.cli.verbs import full_parser

    print(shtab.complete(full_parser(), shell=arguments.shell))
    return 0
