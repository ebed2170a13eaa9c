"""A controller with its page, in a process of its own, and a browser that looks at it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from boincvm.paths import data_directory
from support.killed_on_failure import killed_on_failure

LIMIT = 60
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1280,1000",
)  # fmt: skip


@contextmanager
def served_page(directory: Path) -> Iterator[str]:
    """Yield the page's address, with the token in it."""
    home = directory / "home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "images").symlink_to(data_directory() / "images")
    command = [sys.executable, "-m", "boincvm.cli.main"]
    environment = {**os.environ, "BOINCVM_HOME": str(home)}
    with killed_on_failure(
        subprocess.Popen(
            [*command, "controller", "--listen", "127.0.0.1:0"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as server:
        assert server.stderr is not None
        try:
            output = []
            for line in server.stderr:
                output.append(line)
                if found := re.search(r"(http://\S+/) \(it asks for the token in (.+)\)", line):
                    break
            else:
                raise AssertionError(f"the controller did not start: {output}")
            yield f"{found[1]}#token={Path(found[2]).read_text().strip()}"
        finally:
            subprocess.run([*command, "rm", "--force", "all"], env=environment, timeout=LIMIT)
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=LIMIT)
        assert server.returncode == 0, errors


@contextmanager
def browser(directory: Path) -> Iterator[webdriver.Chrome]:
    """Start a new browser without any state; its downloads go to "downloads"."""
    options = Options()
    for flag in (*_FLAGS, f"--user-data-dir={directory / 'browser'}"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    downloads = {"download.default_directory": str(directory / "downloads")}
    options.add_experimental_option("prefs", downloads)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        driver.set_page_load_timeout(LIMIT)
        yield driver
    finally:
        driver.quit()
