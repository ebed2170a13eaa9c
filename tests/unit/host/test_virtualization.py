"""Commands that give a user access to KVM: what is needed and nothing more."""

import os
from pathlib import Path

import pytest

from boincvm.host import virtualization_linux as virtualization

FOR_THE_GROUP, FOR_THE_OWNER = 0o20660, 0o20600


def test_a_member_of_its_group_may_open_it() -> None:
    text = virtualization.permission_remedy(FOR_THE_GROUP, "kvm", member=False)
    assert text == 'as root: usermod -aG kvm "$USER"; then log in again'


def test_who_has_joined_must_log_in_again() -> None:
    text = virtualization.permission_remedy(FOR_THE_GROUP, "kvm", member=True)
    assert text.startswith("log in again")
    assert "usermod" not in text


@pytest.mark.parametrize(
    ("mode", "group"),
    [
        (FOR_THE_GROUP, "root"),  # root's group owns much else
        (FOR_THE_OWNER, "root"),
        (FOR_THE_OWNER, "kvm"),  # joining would give nothing
        (0o20640, "kvm"),
        (FOR_THE_GROUP, ""),
    ],
)
def test_a_group_that_helps_nobody_is_not_recommended(mode: int, group: str) -> None:
    text = virtualization.permission_remedy(mode, group, member=False)
    assert "-aG root" not in text
    assert "chgrp kvm /dev/kvm; chmod 660 /dev/kvm; usermod -aG kvm" in text


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"vmx", "hypervisor"}, "modprobe kvm_intel"),
        ({"svm"}, "modprobe kvm_amd"),
        ({"hypervisor"}, "nested virtualization"),
        (set(), "in the firmware"),
    ],
)
def test_no_device(flags: set[str], text: str) -> None:
    assert text in virtualization._no_device_remedy(frozenset(flags))


def test_a_device_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    device.touch(mode=0o600)
    monkeypatch.setattr(virtualization, "KVM", device)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may open every file
    assert "chgrp kvm" in virtualization.accelerator_remedy()


def test_a_device_that_can_be_opened_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "kvm"
    device.touch(mode=0o600)
    monkeypatch.setattr(virtualization, "KVM", device)
    assert virtualization.accelerator_remedy() == ""


def test_nesting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, switch = tmp_path / "cpuinfo", tmp_path / "nested"
    table.write_text("processor\t: 0\nflags\t\t: fpu vmx hypervisor\n")
    switch.write_text("Y\n")
    monkeypatch.setattr(virtualization, "_CPU_TABLE", table)
    monkeypatch.setattr(virtualization, "_NESTED", (tmp_path / "none", switch))
    assert virtualization.describe_nesting() == (
        "this host is a virtual machine itself; KVM lets its guests have KVM of their own"
    )
    switch.write_text("0\n")
    table.write_text("flags\t: fpu\n")
    assert virtualization.describe_nesting() == "KVM does not let its guests have KVM of their own"


def test_the_switches_of_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most, apparmor = tmp_path / "most", tmp_path / "apparmor"
    monkeypatch.setattr(virtualization, "_MOST_NAMESPACES", most)
    monkeypatch.setattr(virtualization, "_UNPRIVILEGED", tmp_path / "none")
    monkeypatch.setattr(virtualization, "_APPARMOR", apparmor)
    assert virtualization.namespaces_remedy() == ""
    apparmor.write_text("1\n")
    assert "apparmor_restrict_unprivileged_userns=0" in virtualization.namespaces_remedy()
    most.write_text("0\n")
    assert "user.max_user_namespaces" in virtualization.namespaces_remedy()
