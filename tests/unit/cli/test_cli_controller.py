"""`boincvm controller`: valid and invalid combinations of its options."""

from pathlib import Path

import pytest

from boincvm.cli import broker, controller
from boincvm.cli.main import main
from boincvm.cli.parser import Parser
from boincvm.controller.serve.foreground import warnings
from boincvm.exit_codes import ExitCode


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--listen 127.0.0.1:0 --client-ca ca.pem", "need --tls-certificate"),
        ("--listen 127.0.0.1:0 --tls-key key.pem", "need --tls-certificate"),
        ("--tls-certificate cert.pem", "needs --listen"),
        ("--bus 127.0.0.1:0 --bus-key key.pem", "needs --bus-certificate"),
        ("--bus-certificate cert.pem", "needs --bus"),
        ("--bus 127.0.0.1:0 --broker rabbitmq://me@localhost", "replaces"),
        ("--no-remote-create", "need --broker"),
        ("--remote-network --bus 127.0.0.1:0", "need --broker"),
        (
            "--broker stomp://b@localhost --no-remote-create --remote-network",
            "nothing is created",
        ),
        ("--listen 8080", "expected HOST:PORT"),
        ("--broker amqp://me@localhost", "expected one like rabbitmq://"),
        ("--broker rabbitmq://me:secret@localhost", "--passcode-file"),
        ("--broker rabbitmq://me@localhost", "needs --passcode-file"),
    ],
)
def test_what_makes_no_sense(options, why, capsys):
    assert main(["controller", *options.split()]) == ExitCode.USAGE
    assert why in capsys.readouterr().err


def test_another_broker_by_tls(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passcode").write_text("secret\n")
    parser = Parser()
    controller.add_arguments(parser)
    given = "--broker rabbitmq://me@broker:61614 --passcode-file passcode --broker-ca ca.pem"
    location = broker.broker_of(parser.parse_args(given.split()))
    assert location is not None
    assert (location.login, location.passcode, location.host, location.port, location.dialect) == (
        "me", "secret", "broker", 61614, "rabbitmq",
    )  # fmt: skip
    assert location.authority == str(tmp_path / "ca.pem")


def test_certificates_of_a_broker_that_are_none(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    (tmp_path / "passcode").write_text("secret\n")
    given = ["--broker", "stomp://me@127.0.0.1:1", "--passcode-file", str(tmp_path / "passcode")]
    assert main(["controller", *given, "--broker-ca", str(tmp_path / "no")]) == ExitCode.BUS
    assert "certificates in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("", 0),
        ("--listen 127.0.0.1:0 --bus [::1]:0", 0),
        ("--listen localhost:0", 0),
        ("--listen 0.0.0.0:0", 1),
        ("--listen big.example.org:0 --bus 10.1.2.3:0", 2),
        ("--listen 0.0.0.0:0 --tls-certificate a --bus [::]:0 --bus-certificate b", 0),
        ("--broker rabbitmq://me@10.1.2.3 --passcode-file passcode", 1),
        ("--broker rabbitmq://me@10.1.2.3 --passcode-file passcode --broker-ca ca", 0),
        ("--broker rabbitmq://me@127.0.0.1 --passcode-file passcode", 0),
    ],
)
def test_who_could_read_along_is_told(options, count, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passcode").write_text("secret\n")
    parser = Parser()
    controller.add_arguments(parser)
    given = parser.parse_args(options.split())
    places = controller._listen_address(given), controller._listen(given), broker.broker_of(given)
    assert len(list(warnings(*places))) == count
