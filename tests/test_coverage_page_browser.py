"""The coverage page in a real browser: it loads in silence, and its controls do what they say."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weft.compiler.coverage import Coverage
from weft.compiler.coverage_page import as_page

from .coverage_samples import hostile_sample, sample, undecided_sample

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe
    --window-size=1280,1000
""".split()
SECONDS = 60

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium")


class Browser:
    """A browser spoken to over its debugging pipe, with all that it complained about."""

    def __init__(self, profile: Path) -> None:
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        # The browser reads from 3 and writes to 4; first out of the way, lest one overwrites the other.
        script = f'exec 8<&{theirs} 9>&{answers}; exec 3<&8 4>&9; exec "$@"'
        command = ["bash", "-c", script, "bash", str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(theirs, answers), stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(answers)
        self._rest = b""
        self._number = 0
        self.session: dict[str, str] = {}
        self.complaints: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; complaints that come meanwhile are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self.session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            event = answer.get("method", "")
            if event in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.complaints.append(json.dumps(answer["params"]))
            if event == "Network.requestWillBeSent" and not answer["params"]["request"]["url"].startswith("file:"):
                self.complaints.append(answer["params"]["request"]["url"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 16)
            assert part, "the browser ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, place: str = "") -> None:
        """Load a file anew and wait until it is there."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{path.as_uri()}{place}")
        self.until("location.protocol === 'file:' && document.readyState === 'complete'")

    def ask(self, script: str) -> Any:
        """What a script is worth."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str) -> None:
        """Wait for something to be true."""
        end = time.monotonic() + SECONDS
        while not self.ask(script):
            assert time.monotonic() < end, script
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """One key, as from a keyboard."""
        code = {"ArrowLeft": 37, "ArrowRight": 39}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """One click into a shown element, at a share of its width and height."""
        element = f"document.querySelector({selector!r})"
        self.ask(f"{element}.scrollIntoView({{block: 'center'}})")
        x, y, wide, high = self.ask(f"(b => [b.x, b.y, b.width, b.height])({element}.getBoundingClientRect())")
        at = {"x": x + wide * across, "y": y + high * down, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.ask(f"document.querySelector({selector!r}).textContent")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


def page(folder: Path, *reports: Coverage) -> Path:
    """A file that holds the page of some reports."""
    path = folder / "page.html"
    path.write_text(as_page(reports), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
def test_loads_without_complaint_and_steps_through_depths(browser: Browser, tmp_path: Path, dark: bool) -> None:
    browser.complaints.clear()
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.call("Emulation.setEmulatedMedia", features=scheme)
    browser.open(page(tmp_path, sample()))
    says = "article output.says"
    assert browser.text(says) == "depth 5: 100 % of admissible pairs"
    browser.click(".previous")
    assert browser.text(says) == "depth 4: 97.8 % of admissible pairs" and browser.ask("location.hash") == "#depth=4"
    browser.click(".next")
    browser.click(".next")
    assert browser.text(says).startswith("depth 6") and browser.ask("document.querySelector('.next').disabled")
    browser.ask("document.activeElement.blur()")
    for _ in range(3):
        browser.press("ArrowLeft")
    assert browser.text(says).startswith("depth 3")
    browser.click("input.depth", across=0.01)
    assert browser.text(says).startswith("depth 1")
    browser.press("ArrowRight")  # the slider's own keys, not ours as well
    assert browser.text(says).startswith("depth 2")
    assert browser.complaints == []
    # Cells are drawn: full on the diagonal, blank where nothing is admissible.
    pixel = "(x, y) => [...document.querySelector('.reach canvas').getContext('2d').getImageData(x, y, 1, 1).data]"
    assert browser.ask(f"({pixel})(5, 5)") == ([125, 211, 252, 255] if dark else [29, 78, 216, 255])
    assert browser.ask(f"({pixel})(9, 5)") == [0, 0, 0, 0]


def test_a_click_tells_what_is_there(browser: Browser, tmp_path: Path) -> None:
    browser.open(page(tmp_path, sample(), undecided_sample()), "#depth=2")
    browser.click(".reach canvas", across=10.5 / 48, down=40.5 / 48)
    assert browser.text(".masks .readout") == "queries 80 to 81, keys 20 to 21: none kept"
    assert browser.text(".reach .readout") == "queries 80 to 81, keys 20 to 21: none reached"
    assert browser.ask("['query', 'key'].map(name => document.querySelector('input.' + name).value)") == ["80", "20"]
    browser.ask("location.hash = '#depth=5'")
    browser.until("document.querySelector('.reach .readout').textContent.endsWith('all reached')")
    browser.ask("(f => { f.value = 95; f.dispatchEvent(new Event('input')) })(document.querySelector('input.key'))")
    assert browser.text(".reach .readout") == "queries 80 to 81, keys 94 to 95: not admissible"
    browser.ask("location.hash = '#report=2&depth=1'")
    browser.until("!document.getElementById('report-1').hidden")
    browser.click("#report-1 .reach canvas", across=0.01, down=0.99)
    assert browser.text("#report-1 .reach .readout").endswith("none certain to be reached")


def test_links_and_the_choice_of_a_report(browser: Browser, tmp_path: Path) -> None:
    path = page(tmp_path, sample(), sample("window", far=False), undecided_sample())
    browser.open(path, "#report=2&depth=3")
    shown = "[...document.querySelectorAll('article')].map(a => !a.hidden)"
    assert browser.ask(shown) == [False, True, False]
    assert browser.text("#report-1 output.says") == "depth 3: 19.7 % of admissible pairs"
    assert browser.ask("document.querySelector('#report-1 .reach .hole').hidden") is False
    browser.ask("(c => { c.value = '2'; c.dispatchEvent(new Event('change')) })(document.getElementById('report'))")
    assert browser.ask(shown) == [False, False, True] and browser.ask("location.hash") == "#report=3&depth=6"
    for place in ("#report=9&depth=99", "#report=x&depth=-1", "#report=-3", "#%"):
        browser.complaints.clear()
        browser.open(path, place)
        assert sum(browser.ask(shown)) == 1 and browser.complaints == []


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    browser.complaints.clear()
    browser.open(page(tmp_path, hostile_sample()))
    assert browser.ask("document.title").endswith("weft coverage") and browser.ask("document.images.length") == 0
    assert browser.text("article output.says").startswith("depth 5") and browser.complaints == []


@pytest.mark.parametrize("width", [360, 400, 1280])
def test_nothing_sticks_out(browser: Browser, tmp_path: Path, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 1000}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.open(page(tmp_path, hostile_sample(), sample(), undecided_sample()))
    assert browser.ask("document.documentElement.scrollWidth") <= width
    browser.call("Emulation.clearDeviceMetricsOverride")
