"""init_data.xml, valid and damaged."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.boinc.init_data import (
    LARGEST_FILE,
    InitData,
    InitDataError,
    Preferences,
    parse_init_data,
    read_init_data,
)
from boincvm.wrapper.guest_init_data import guest_init_data

TEXT = """<app_init_data>
<major_version>8</major_version>
<minor_version>2</minor_version>
<release>8</release>
<app_version>101</app_version>
<app_name>ecm</app_name>
<project_preferences>
<checkpoint_period>7</checkpoint_period>
<max_jobs>3</max_jobs>
</project_preferences>
<user_name>A &amp; B</user_name>
<project_dir>/var/lib/boinc/projects/example.org_x</project_dir>
<boinc_dir>/var/lib/boinc</boinc_dir>
<wu_name>w</wu_name>
<result_name>w_0</result_name>
<shm_key>-1</shm_key>
<slot>3</slot>
<client_pid>1234</client_pid>
<wu_cpu_time>12.500000</wu_cpu_time>
<starting_elapsed_time>20.0</starting_elapsed_time>
<using_sandbox>1</using_sandbox>
<vm_extensions_disabled>0</vm_extensions_disabled>
<checkpoint_period>60.000000</checkpoint_period>
<fraction_done_end>0.500000</fraction_done_end>
<ncpus>4.000000</ncpus>
<rsc_memory_bound>1000000000.000000</rsc_memory_bound>
<host_info>
    <p_ncpus>16</p_ncpus>
    <m_nbytes>8000000000.000000</m_nbytes>
    <slot>99</slot>
</host_info>
<proxy_info>
    <use_http_proxy/>
    <http_server_name>proxy</http_server_name>
    <http_server_port>3128</http_server_port>
    <socks_server_name>unused</socks_server_name>
</proxy_info>
<global_preferences>
    <cpu_usage_limit>50.000000</cpu_usage_limit>
    <ram_max_used_busy_pct>25.000000</ram_max_used_busy_pct>
    <leave_apps_in_memory>1</leave_apps_in_memory>
    <max_bytes_sec_up>1000</max_bytes_sec_up>
</global_preferences>
<app_file>main</app_file>
<app_file>a&lt;b</app_file>
</app_init_data>
"""


def test_what_a_client_writes() -> None:
    data = parse_init_data(TEXT)
    assert (data.major_version, data.minor_version, data.release) == (8, 2, 8)
    assert data.user_name == "A & B"
    assert data.project_path == Path("/var/lib/boinc/projects/example.org_x")
    assert (data.slot, data.client_pid, data.shared_memory_key) == (3, 1234, -1)
    assert (data.cpu_time, data.elapsed_time, data.checkpoint_period) == (12.5, 20, 60)
    assert (data.using_sandbox, data.vm_extensions_disabled) == (True, False)
    assert (data.fraction_done_start, data.fraction_done_end) == (0, 0.5)
    assert (data.processors, data.host_processors, data.host_memory) == (4, 16, 8e9)
    assert data.preferences == Preferences(
        cpu_usage_limit=50,
        ram_busy_fraction=0.25,
        ram_idle_fraction=0.9,
        leave_in_memory=True,
        maximum_upload_rate=1000,
    )
    assert (data.proxy.http_host, data.proxy.http_port, data.proxy.socks_host) == (
        "proxy",
        3128,
        "",
    )
    assert "<max_jobs>3" in data.project_preferences
    assert data.app_files == ("main", "a<b")
    assert data.raw == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<ncpus>four</ncpus><client_pid>-5</client_pid><fraction_done_end>nan</fraction_done_end>",
        "<checkpoint_period>0</checkpoint_period><wu_cpu_time>-1</wu_cpu_time><slot>1e30</slot>",
        "<p_ncpus>0</p_ncpus><host_info><p_ncpus>-3</p_ncpus></host_info><app_file></app_file>",
        "<global_preferences><cpu_usage_limit>0</cpu_usage_limit>",
    ],
)
def test_what_is_missing_or_wrong_has_its_default(text: str) -> None:
    data = parse_init_data(text)
    assert data == InitData(raw=text)


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    assert parse_init_data(text).raw == text


@given(st.data())
def test_no_damage_breaks_it(data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(begin, len(TEXT)))
    parsed = parse_init_data(TEXT[:begin] + data.draw(st.text(max_size=20)) + TEXT[end:])
    assert parsed.checkpoint_period > 0
    assert parsed.client_pid >= 0


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert read_init_data(tmp_path) is None


def test_bytes_stay_as_they_are(tmp_path: Path) -> None:
    """The client escapes names byte by byte, and directories not at all."""
    (tmp_path / "init_data.xml").write_bytes(
        b"<app_init_data><app_name>\xe9</app_name><user_name>&#195;&#169;&#233;</user_name>"
        b"<project_dir>/a&amp;b</project_dir>"
        b"<project_preferences><x>\xe9</x></project_preferences>"
    )
    data = read_init_data(tmp_path)
    assert data is not None
    assert os.fsencode(data.app_name) == b"\xe9"
    assert os.fsencode(data.user_name) == b"\xc3\xa9\xe9"
    assert data.project_directory == "/a&amp;b"
    assert b"<project_preferences><x>\xe9</x></project_preferences>" in guest_init_data(data, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"<other/>", "has no <app_init_data>"), (b"x" * (LARGEST_FILE + 1), "more than")],
)
def test_a_file_of_no_client(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "init_data.xml").write_bytes(content)
    with pytest.raises(InitDataError, match=reason):
        read_init_data(tmp_path)


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "init_data.xml").mkdir()
    with pytest.raises(InitDataError):
        read_init_data(tmp_path)
