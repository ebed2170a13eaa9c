"""`boincvm controller`: what its options may and may not be together."""

from pathlib import Path

import pytest

from boincvm.cli import controller
from boincvm.cli.main import main
from boincvm.cli.parser import Parser
from boincvm.exit_codes import ExitCode


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--listen 127.0.0.1:0 --client-ca ca.pem", "need --tls-certificate"),
        ("--listen 127.0.0.1:0 --tls-key key.pem", "need --tls-certificate"),
        ("--tls-certificate cert.pem", "needs --listen"),
        ("--bus 127.0.0.1:0 --bus-key key.pem", "needs --bus-certificate"),
        ("--bus-certificate cert.pem", "needs --bus"),
        ("--bus 127.0.0.1:0 --broker rabbitmq://me@localhost", "takes the place of"),
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
    place = controller._broker(parser.parse_args(given.split()))
    assert place is not None
    assert (place.login, place.passcode, place.host, place.port, place.dialect) == (
        "me", "secret", "broker", 61614, "rabbitmq",
    )  # fmt: skip
    assert place.authority == str(tmp_path / "ca.pem")


def test_certificates_of_a_broker_that_are_none(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    (tmp_path / "passcode").write_text("secret\n")
    given = ["--broker", "stomp://me@127.0.0.1:1", "--passcode-file", str(tmp_path / "passcode")]
    assert main(["controller", *given, "--broker-ca", str(tmp_path / "no")]) == ExitCode.BUS
    assert "certificates in" in capsys.readouterr().err
