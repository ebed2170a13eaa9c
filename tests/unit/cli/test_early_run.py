"""Which words of `boincvm run` tell the machine."""

import argparse

import pytest

from boincvm.cli import run
from boincvm.cli.early_run import MACHINE_OPTIONS, MACHINE_SWITCHES, machine_words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run -- true", ""),
        ("run --memory 1G --json -- prog --cpus 2", "--memory 1G"),
        ("run --memory=1G --network --input a --output b -- prog", "--memory=1G --network"),
        ("run --quiet job.toml", "job.toml"),
        ("run --cpus 2 x/job.toml", "--cpus 2 x/job.toml"),
        ("run --env A=--memory --no-network -- prog", "--no-network"),
        ("run --image -- prog", "--image"),
        ("run", ""),
    ],
)
def test_which_words_tell_the_machine(arguments, words):
    assert machine_words(arguments.split()) == words.split()


def test_all_options_for_the_machine_are_known():
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    (group,) = [group for group in parser._action_groups if group.title == "the machine"]
    actions = group._group_actions
    options = {name for action in actions if action.nargs != 0 for name in action.option_strings}
    switches = {name for action in actions if action.nargs == 0 for name in action.option_strings}
    assert options == {*MACHINE_OPTIONS}
    assert switches == {*MACHINE_SWITCHES}
