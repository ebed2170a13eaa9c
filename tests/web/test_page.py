"""The web page in a real browser, with real machines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoAlertPresentException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from support.web_page import LIMIT, browser, served_page

pytestmark = pytest.mark.timeout(280)
NOT_YET = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoAlertPresentException,
    NoSuchElementException,
    StaleElementReferenceException,
    StopIteration,
)
HOSTILE = "<img src=x onerror=document.title=1>"


LISTS = """
    const requests = performance.getEntriesByType("resource");
    return requests.filter((one) => one.name.endsWith("/api/list")).length;
"""
"""How often the page has got the list of machines."""
FETCH = 'document.querySelector("#filter").dispatchEvent(new Event("input"))'


class Person:
    """Looks at the page and clicks."""

    def __init__(self, driver: Chrome, directory: Path) -> None:
        self.driver = driver
        self.picture = directory / "page.png"  # of what it could not bring about

    def until(self, condition: Callable[[], Any]) -> Any:
        """Poll until it returns a value; elements that the page redraws meanwhile are looked up
        again."""
        wait = WebDriverWait(self.driver, LIMIT, 0.05, NOT_YET)
        try:
            return wait.until(lambda _: condition())
        except TimeoutException:
            output = self.driver.get_log("browser")
            self.driver.save_screenshot(str(self.picture))
            raise AssertionError(f"still:\n{self.text('body')}\n{output}") from None

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def press(self, selector: str, text: str) -> None:
        """Press the button with that text."""

        def pressed() -> bool:
            next(one for one in self.all(f"{selector} button") if one.text == text).click()
            return True

        self.until(pressed)

    def click(self, selector: str) -> None:
        """Click an element, which the page may redraw at any moment."""

        def clicked() -> bool:
            self.find(selector).click()
            return True

        self.until(clicked)

    def agree(self) -> None:
        self.until(lambda: self.driver.switch_to.alert or True)
        self.driver.switch_to.alert.accept()

    def press_long(self, selector: str) -> None:
        """Press an element, and release it only after the list of machines has come anew."""

        def pressed() -> bool:
            ActionChains(self.driver).click_and_hold(self.find(selector)).perform()
            return True

        def lists() -> int:
            count: int = self.driver.execute_script(LISTS)
            return count

        self.until(pressed)
        before = lists()
        self.driver.execute_script(FETCH)
        self.until(lambda: lists() > before)
        ActionChains(self.driver).release().perform()

    def write(self, selector: str, text: str) -> None:
        def written() -> bool:
            field = self.find(selector)
            field.clear()
            field.send_keys(text)
            return True

        self.until(written)

    def create(self, name: str, *, screen: bool = False) -> None:
        self.click("#new")
        self.write("#create [name=name]", name)
        self.write("#create [name=memory]", "256M")
        self.write("#create [name=disk]", "8G")
        self.write("#create [name=labels]", "site=here rack=7")
        if screen:
            self.click("#create [name=display]")
        self.press("#create", "Create")
        self.until(lambda: self.text(f'tr[data-vm="{name}"] .labels') == "site=here rack=7")
        self.until(lambda: not self.find("#create").is_displayed())

    def until_state(self, name: str, state: str) -> None:
        self.until(lambda: self.text(f'tr[data-vm="{name}"] .state') == state)

    def run(self, line: str) -> dict[str, str]:
        """Run a command; return the output by machine, once all have ended."""
        self.write("#run-line", line)
        self.press("#run", "Run")

        def ended() -> dict[str, str] | None:
            if self.find("#run-cancel").is_displayed():
                return None
            boxes = self.all("#outputs .output")
            found = {str(box.get_attribute("data-vm")): box.text for box in boxes}
            # It may have begun since the button was looked for; the first line tells of the end.
            return (
                found if all(" · " in text.partition("\n")[0] for text in found.values()) else None
            )

        found: dict[str, str] = self.until(ended)
        return found


def test_a_person_and_three_machines(base_image: Path, tmp_path: Path) -> None:
    with served_page(tmp_path) as address, browser(tmp_path) as driver:
        person = Person(driver, tmp_path)
        driver.get(address.partition("#")[0])
        # Without a token it asks for one, and with a wrong one again.
        person.until(lambda: person.find("#ask-token").is_displayed())
        assert not person.find("#trouble").is_displayed()  # a first visit is no error
        person.write("#token", "wrong")
        person.press("#ask-token", "Go on")
        person.until(lambda: "token is missing or wrong" in person.text("#trouble"))
        driver.get("about:blank")
        driver.get(address)
        person.until(lambda: person.text("#link") == "live")
        assert "token" not in driver.current_url

        names = ("a.1", "a.2", "b.1")
        for name in names:
            person.create(name, screen=name == "a.1")
            person.press_long(f'tr[data-vm="{name}"] td:last-child button')
        for name in names:
            person.until_state(name, "running")
        person.write("#filter", "a.*")
        person.until(lambda: not person.all('tr[data-vm="b.1"]'))
        both = person.run(f"sh -c 'echo \"{HOSTILE}\"; echo two >file; exit 3'")
        assert sorted(both) == ["a.1", "a.2"]
        for name, text in both.items():
            assert text == f"{name} · exit code 3\n{HOSTILE}"
        assert driver.title == "boincvm"

        # One machine's own view.
        person.click('tr[data-vm="a.1"] .name')
        person.until(lambda: person.text("#one-name") == "a.1")
        # Its screen: the shell's prompt, and what a person types.
        canvas = person.until(lambda: person.find("#screen canvas"))
        person.until(lambda: bright(driver) > 0)
        before = bright(driver)
        canvas.click()
        # So few keys fit into a keyboard's buffer, if the guest does not run for a while.
        canvas.send_keys("set", Keys.ENTER)
        person.until(lambda: bright(driver) > 2 * before)

        person.write("#take [name=name]", "first")
        person.press("#take", "Take a snapshot")
        person.until(lambda: "first" in person.text("#snapshots"))
        person.run("rm file")
        assert person.run("ls") == {"a.1": "a.1 · exit code 0"}
        person.press("#snapshots", "Restore")
        person.agree()
        # The newest event is the first; the list of machines is drawn some time after each.
        person.until(lambda: "is running" in newer_events(person, "is restoring"))
        person.until_state("a.1", "running")
        assert person.run("ls") == {"a.1": "a.1 · exit code 0\nfile"}

        sent = tmp_path / "sent.txt"
        sent.write_text("from the page\n")
        person.find("#put [type=file]").send_keys(str(sent))
        person.write("#put [name=path]", "there.txt")
        person.press("#put", "Send")
        person.until(
            lambda: "is there" in str(person.find("#put [name=path]").get_attribute("placeholder"))
        )
        assert "from the page" in person.run("cat there.txt")["a.1"]
        person.write("#get [name=path]", "there.txt")
        person.press("#get", "Fetch")
        fetched = tmp_path / "downloads" / "there.txt"
        person.until(lambda: fetched.exists() and fetched.read_text() == "from the page\n")
        load_is_told(person)
        themes_are_followed(person)

        person.press("#one-acts", "Power off")
        person.agree()
        person.until_state("a.1", "powered off")
        person.press("#one-acts", "Remove")
        person.agree()
        person.until(lambda: not person.all('tr[data-vm="a.1"]'))
        person.write("#filter", "all")
        for name in ("a.2", "b.1"):
            person.press(f'tr[data-vm="{name}"]', "Stop")
            person.until_state(name, "powered off")
        loud = [one for one in driver.get_log("browser") if "401" not in one["message"]]
        assert [one["message"] for one in loud if one["level"] == "SEVERE"] == []


def newer_events(person: Person, text: str) -> str:
    """Return the events after the last one with that text; none if there is no such event."""
    newer, found, _ = person.text("#event-list").partition(text)
    return newer if found else ""


PLOT = """
    const plot = document.querySelector(arguments[0]);
    return [
      plot.querySelector("polyline").getAttribute("points"),
      [...plot.querySelectorAll("text")].map((one) => one.textContent),
      plot.querySelector("output").textContent,
      plot.querySelector("svg").getAttribute("aria-label"),
      plot.querySelector(".pointer circle") !== null,
    ];
"""
"""What a plot shows at one moment: it is drawn anew whenever a machine reports its load."""


def load_is_told(person: Person) -> None:
    """Check that the plots have axes with units and times, and the value at the pointer."""
    for plot, unit in (("#plot-cpu", "%"), ("#plot-memory", "MiB")):

        def drawn(plot: str = plot) -> list[Any] | None:
            """Return what it shows, once the machine has reported its load."""
            found: list[Any] = person.driver.execute_script(PLOT, plot)
            return found if found[0] else None

        _, labels, usual, description, _ = person.until(drawn)
        values, times = labels[:3], labels[3:]
        assert all(text.endswith(f" {unit}") for text in values), labels
        assert values[0].split()[0] == "0"
        assert len(set(values)) == 3
        assert all(":" in text for text in times), labels
        assert usual.split()[0] in description

        def pointed(plot: str = plot) -> str | None:
            """Move the pointer there, and return what is told then."""
            svg, away = person.find(f"{plot} svg"), person.find("h1")
            ActionChains(person.driver).move_to_element(away).move_to_element(svg).perform()
            _, _, output, _, has_mark = person.driver.execute_script(PLOT, plot)
            return str(output) if " at " in output and has_mark else None

        assert unit in person.until(pointed)
        ActionChains(person.driver).move_to_element(person.find("h1")).perform()
        person.until(lambda one=plot: " at " not in person.text(f"{one} output"))
    assert "the guest was given 256 MiB" in person.text("#plot-memory output")
    header = [one.text for one in person.all("thead th")]
    assert header[3:5] == ["Memory", "On host"]


CONTRAST = """
    const light = (color) => {
      const [r, g, b] = color.match(/[0-9.]+/g).map((part) => part / 255)
        .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const back = (one) => {
      for (; one; one = one.parentElement) {
        const color = getComputedStyle(one).backgroundColor;
        if (!/, 0\\)$/.test(color) && !color.startsWith("color")) return color;
      }
    };
    return [
      "body", "h2", "h3", "#run-line", "#run button", ".acts button", "td", ".labels", "output",
    ].map((name) => {
        const one = document.querySelector(name);
        const pair = [light(getComputedStyle(one).color), light(back(one))].sort((a, b) => b - a);
        return [name, (pair[0] + 0.05) / (pair[1] + 0.05)];
      });
"""


def themes_are_followed(person: Person) -> None:
    """Check that text is readable in both themes, and nothing overflows a narrow window."""
    driver = person.driver
    backs = set()
    for theme in ("dark", "light"):
        wanted = [{"name": "prefers-color-scheme", "value": theme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
        for name, contrast in driver.execute_script(CONTRAST):
            assert contrast >= 4.5, (theme, name, contrast)
        backs.add(person.find("body").value_of_css_property("background-color"))
        size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for section in ("#machines", "#one", "#events"):
            width = f"const one = document.querySelector('{section}');"
            width += "return [one.scrollWidth, one.clientWidth]"
            wide, room = driver.execute_script(width)
            assert wide <= room, (theme, section)
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(backs) == 2
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def bright(driver: Chrome) -> int:
    """Return how many of the screen's pixels are not black."""
    count: int = driver.execute_script(
        """
        const canvas = document.querySelector("#screen canvas");
        if (!canvas || !canvas.width) return 0;
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let count = 0;
        for (let at = 0; at < data.length; at += 4)
          if (data[at] + data[at + 1] + data[at + 2] > 90) count += 1;
        return count;
        """
    )
    return count
