"""`boincvm run`: which job a command line describes."""

import os
import sys
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode
from boincvm.job.model import (
    GIB,
    MIB,
    InputFile,
    Job,
    Limits,
    MachineShape,
    MachineTask,
    OutputFile,
    PortForward,
)


class Started:
    """Records the arguments of run_job."""

    job: Job
    json_output: bool
    show_progress: bool
    has_terminal: bool
    times = 0


@pytest.fixture
def started(monkeypatch, tmp_path):
    calls = Started()

    def run_job(job, *, json_output, show_progress, driver, is_verbose, has_terminal):
        calls.has_terminal = has_terminal
        calls.driver, calls.is_verbose = driver, is_verbose
        calls.job, calls.json_output, calls.show_progress = job, json_output, show_progress
        calls.times += 1
        return 7

    module = ModuleType("boincvm.runner.run")
    module.run_job = run_job
    monkeypatch.setitem(sys.modules, "boincvm.runner.run", module)
    monkeypatch.chdir(tmp_path)
    return calls


def lands(path: str) -> InputFile:
    return InputFile(Path(path), PurePosixPath(path))


def test_a_bare_command_has_the_models_defaults(started, tmp_path):
    assert main(["run", "--", "uname", "-a"]) == 7
    assert started.job == Job(tasks=(MachineTask(argv=("uname", "-a")),), directory=tmp_path)
    assert started.json_output is False


def test_every_option(started, tmp_path):
    options = (
        "--image sci --memory 1.5G --cpus 2 --disk 8G --network "
        "--input data.txt --input /etc/hosts --output r.txt --output logs/x "
        "--env A=b=c --env D= --stdin in.txt --time-limit 2h "
        "--boot-limit 300 --silence-limit 1m30s --json --quiet"
    )
    assert main(["run", *options.split(), "--", "prog", "--memory", "--", "x"]) == 7
    assert started.job == Job(
        tasks=(
            MachineTask(
                argv=("prog", "--memory", "--", "x"),
                environment={"A": "b=c", "D": ""},
                stdin=Path("in.txt"),
                time_limit=7200.0,
            ),
        ),
        directory=tmp_path,
        machines={"": MachineShape("sci", 1536 * MIB, cpus=2, disk=8 * GIB, network=True)},
        inputs=(lands("data.txt"), InputFile(Path("/etc/hosts"), PurePosixPath("hosts"))),
        outputs=(
            OutputFile(PurePosixPath("r.txt"), PurePosixPath("r.txt")),
            OutputFile(PurePosixPath("logs/x"), PurePosixPath("logs/x")),
        ),
        limits=Limits(boot=300.0, silence=90.0),
    )
    assert started.json_output is True


@pytest.mark.parametrize(
    ("program", "inputs"),
    [
        ("./prog", [lands("prog")]),
        ("bin/tool", [lands("bin/tool")]),
        ("./bin/../prog", [InputFile(Path("bin/../prog"), PurePosixPath("prog"))]),
        ("prog", []),
        ("./absent", []),
        ("./bin", []),
        ("{here}/prog", []),
        ("bin/../../{name}/prog", []),
    ],
)
def test_a_program_of_this_directory_goes_in_by_itself(started, tmp_path, program, inputs):
    (tmp_path / "bin").mkdir()
    (tmp_path / "prog").touch()
    (tmp_path / "bin/tool").touch()
    assert main(["run", "--", program.format(here=tmp_path, name=tmp_path.name)]) == 7
    assert list(started.job.inputs) == inputs


@pytest.mark.parametrize("given", ["bin/tool", "bin", "./bin/"])
def test_a_program_that_is_among_the_inputs_goes_in_once(started, tmp_path, given):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").touch()
    assert main(["run", "--input", given, "--", "./bin/tool"]) == 7
    assert len(started.job.inputs) == 1


@pytest.mark.parametrize(
    ("options", "terminal", "shown"),
    [([], True, True), ([], False, False), (["--quiet"], True, False), (["--json"], True, False)],
)
def test_progress_is_for_terminals(started, monkeypatch, options, terminal, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    main(["run", *options, "--", "x"])
    assert started.show_progress is shown


@pytest.fixture
def job_file(started, tmp_path):
    path = tmp_path / "sub/job.toml"
    path.parent.mkdir()
    path.write_text(
        '[machine]\nimage = "sci"\nmemory = "1G"\nnetwork = true\n'
        '[limits]\nrun = 60\nstop = 9\n[files]\ninput = ["a"]\n[[task]]\ncommand = "x y"\n'
    )
    return path


def test_a_job_file(started, job_file):
    assert main(["run", "sub/job.toml"]) == 7
    job = started.job
    assert job.directory == job_file.parent
    assert job.tasks == (MachineTask(argv=("x", "y"), time_limit=60.0),)
    assert job.inputs == (lands("a"),)
    assert job.machine == MachineShape(image="sci", memory=GIB, network=True)
    assert job.limits == Limits(stop=9.0)


@pytest.mark.parametrize("option", ["-n", "--no-stdin"])
def test_no_standard_input(started, job_file, option):
    assert main(["run", option, "--", "prog"]) == 7
    assert started.job.tasks[0].stdin == Path("/dev/null")
    text = '[[task]]\ncommand = ["a"]\nstdin = "in"\n[[task]]\ncommand = ["b"]\n'
    Path(job_file).write_text(text)
    assert main(["run", option, str(job_file)]) == 7
    assert [task.stdin for task in started.job.tasks] == [Path("in"), Path("/dev/null")]


def test_options_override_a_job_file(started, job_file):
    options = ["--memory=2G", "--cpus=3", "--no-network", "--time-limit=5", "--boot-limit=6"]
    assert main(["run", *options, "sub/job.toml"]) == 7
    assert started.job.machine == MachineShape(image="sci", memory=2 * GIB, cpus=3, network=False)
    assert started.job.limits == Limits(boot=6.0, stop=9.0)
    assert [task.time_limit for task in started.job.tasks] == [5.0]
    main(["run", "sub/job.toml", *options])
    assert started.job.machine.cpus == 3


def test_a_published_port_gives_the_machine_a_network(started, job_file):
    assert main(["run", "--publish", "8080:80", "--publish", "2222:22", str(job_file)]) == 7
    assert started.job.forwards == (PortForward(8080, 80), PortForward(2222, 22))
    assert started.job.machine.network


def test_a_remote_desktop_only_where_asked_for(started, job_file, capsys):
    assert main(["run", "--remote-desktop", str(job_file)]) == 7
    assert started.job.remote_desktop
    assert main(["run", str(job_file)]) == 7
    assert not started.job.remote_desktop
    assert main(["run", "--resumable", "--remote-desktop", "--", "true"]) == ExitCode.USAGE
    assert "found --remote-desktop with --resumable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-network"], "found both --publish and --no-network"),
        (["--publish", "8080:81"], "found two --publish with the host's port 8080"),
        (["--publish", "no"], "found 'no', expected a port of the host and one of the guest"),
    ],
)
def test_ports_that_cannot_be_published(started, capsys, options, message):
    words = ["run", "--publish", "8080:80", *options, "--", "true"]
    assert main(words) == ExitCode.USAGE
    assert message in capsys.readouterr().err
    assert started.times == 0


def test_a_faulty_job_file(started, tmp_path, capsys):
    (tmp_path / "job.toml").write_text("\nx = 1")
    assert main(["run", "job.toml"]) == ExitCode.JOB_FILE
    assert capsys.readouterr().err.startswith("boincvm: job.toml:2: found the unknown key 'x'")
    assert main(["run", "absent.toml"]) == ExitCode.JOB_FILE


def test_a_program_that_is_nowhere_starts_no_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("boincvm.runner.run.EarlyStart", None)
    assert main(["run", "--", "./nosuch"]) == ExitCode.NO_SUCH_PROGRAM
    assert "'./nosuch' does not exist in" in capsys.readouterr().err


def test_more_processors_than_the_host_has(capsys):
    assert main(["run", "--cpus", "256", "--", "true"]) == ExitCode.USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert "asks for 256 processors, and this host has" in first
    assert "--cpus" in second


_WITHOUT_A_COMMAND = ("", "--", "ecm", "ecm 10 1e5", "ecm -c 10", "a.toml b.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "found nothing to run"),
        ("--", "found nothing after --"),
        ("ecm", "found 'ecm', expected one job file, or -- before a command"),
        ("ecm 10 1e5", "found 'ecm' '10' '1e5', expected one job file, or -- before a command"),
        ("ecm -c 10", "unrecognized arguments: -c 10"),
        ("a.toml b.toml", "found 'a.toml' 'b.toml', expected one job file"),
        ("a.toml -- x", "found 'a.toml' before --"),
        ("--input x a.toml", "found --input with a job file"),
        ("--env A=b a.toml", "found --env with a job file"),
        ("--stdin x a.toml", "found --stdin with a job file"),
        ("--output x a.toml", "found --output with a job file"),
        ("--env A -- x", "found --env 'A', expected --env NAME=VALUE"),
        ("--env =b -- x", "found --env '=b', expected --env NAME=VALUE"),
        ("--output ../x -- x", "found '../x', expected a path beneath"),
        ("--output /x -- x", "found '/x', expected a path beneath"),
        ("--input .. -- x", "found '..', expected a file or a directory with a name"),
        ("--output a:../x -- x", "found '../x', expected a path beneath"),
        ("--directory /tmp -- x", "found '/tmp', expected a path beneath"),
        ("--directory a a.toml", "found --directory with a job file"),
        ("--input a --input ./a -- x", "found two --input with the destination 'a'"),
        ("--output a --output ./a -- x", "found two --output with the destination 'a'"),
        ("--output a/b --output a -- x", "found --output 'a' after one that is in it"),
        ("--cpus 0 -- x", "argument --cpus: found 0, expected a whole number from 1 to 256"),
        ("--cpus two -- x", "argument --cpus: found 'two', expected a whole number"),
        ("--memory 1T1 -- x", "argument --memory: found '1T1', expected a size"),
        ("--image A/b -- x", "argument --image: found 'A/b', expected an image's name"),
        ("--time-limit -5 -- x", "argument --time-limit: found '-5', expected a duration"),
        ("--time-limit 0 -- x", "argument --time-limit: found '0', expected a duration above 0"),
        ("--mem 1G -- x", "unrecognized arguments: --mem"),
    ],
)
def test_usage_errors(started, capsys, arguments, message):
    assert main(["run", *arguments.split()]) == ExitCode.USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert message in first
    assert second.endswith("boincvm run --help shows examples")
    has_advice = "a command goes after --, like: boincvm run -- PROGRAM ARGUMENT" in second
    assert has_advice is (arguments in _WITHOUT_A_COMMAND)
    assert started.times == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--stdin x -- x", "found --stdin with -t"),
        ("-n -- x", "found --no-stdin with -t"),
        ("--json -- x", "found --json with -t"),
        ("--resumable -- x", "found --resumable with -t"),
        ("--resume", "found --resume with -t"),
        ("a.toml", "found a job file with -t"),
        ("-- x", "needs a terminal, and standard input is not one"),
    ],
)
def test_what_a_terminal_does_not_go_with(started, capfd, arguments, message):
    """Standard input is no terminal here, which is looked at last."""
    with Path(os.devnull).open() as nothing:
        own = os.dup(0)
        os.dup2(nothing.fileno(), 0)
        try:
            assert main(["run", "-t", *arguments.split()]) == ExitCode.USAGE
        finally:
            os.dup2(own, 0)
            os.close(own)
    assert message in "".join(capfd.readouterr())
    assert started.times == 0
