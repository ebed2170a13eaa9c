"""Where files are stored."""

from pathlib import Path

import pytest

from boincvm import paths


@pytest.fixture(autouse=True)
def nothing_set(tmp_path, monkeypatch):
    for name in ("BOINCVM_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)


def test_beneath_the_users_home():
    assert paths.data_directory() == Path("/home/somebody/.local/share/boincvm")
    assert paths.cache_directory() == Path("/home/somebody/.cache/boincvm")


def test_by_the_xdg_specification_which_wants_whole_paths(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/x")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert paths.runs_directory() == Path("/var/x/boincvm/runs")
    assert paths.data_directory() == Path("/home/somebody/.local/share/boincvm")


def test_beneath_one_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("BOINCVM_HOME", "here")
    assert paths.data_directory() == tmp_path / "here/data"
    monkeypatch.setenv("BOINCVM_HOME", "/there")
    assert paths.controller_directory() == Path("/there/data/controller")


def test_a_link_and_two_dots_lead_where_the_kernel_says(tmp_path, monkeypatch):
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "link/../home"))
    paths.cache_directory().mkdir(parents=True)
    assert (tmp_path / "far/home/cache").is_dir()


def test_a_whole_path_needs_no_current_directory(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("BOINCVM_HOME", "/there")
    assert paths.cache_directory() == Path("/there/cache")
