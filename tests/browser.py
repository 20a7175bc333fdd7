"""A headless Chromium for the tests of pages: opens a file or an address, types, moves the pointer, keeps what goes wrong."""
import json
import shutil
import time
from pathlib import Path

import pytest

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--use-angle=swiftshader", "--enable-unsafe-swiftshader",    # WebGL without a graphics card
         "--hide-scrollbars", "--force-device-scale-factor=1",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1")    # the network is cut
SETTINGS = [(1280, False), (1280, True), (390, False), (390, True)]    # width in CSS pixels, dark: a desk and a phone
MISSING = "Chromium or its driver is not installed (apt-get install chromium chromium-driver): pages are not tested"

CONTRAST = """
const numbers = (colour) => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return { rgb: [r, g, b], a }; };
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4));
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = (element) => {    // of the nearest ancestor that has one; white where none has
  for (let e = element; e; e = e.parentElement) {
    const { rgb, a } = numbers(getComputedStyle(e).backgroundColor);
    if (a === 1) return rgb;
  }
  return [255, 255, 255];
};
const faint = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode.textContent.trim(), element = texts.currentNode.parentElement;
  if (!text || !element.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true })) continue;
  const [a, b] = [light(numbers(getComputedStyle(element).color).rgb), light(ground(element))];
  const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (contrast < arguments[0]) faint.push(`${contrast.toFixed(1)}: ${text.slice(0, 60)}`);
}
return faint;
"""

FRAME = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"


class Browser:
    "One Chromium with an empty profile and no network; `driver` is Selenium's, for what has no method here."

    def __init__(self, profile: Path):
        found = [shutil.which(name) for name in ("chromium", "chromedriver")]
        if None in found: pytest.skip(MISSING)
        try:
            from selenium import webdriver
        except ImportError:
            pytest.skip("selenium is not installed (pip install .[dev]): pages are not tested")
        options = webdriver.ChromeOptions()
        options.binary_location = found[0]
        for flag in (*FLAGS, f"--user-data-dir={profile}"): options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
        self.driver.set_page_load_timeout(60)
        self.driver.set_script_timeout(60)

    def open(self, page: Path | str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        "Open a file of this machine, or an address, at a width in CSS pixels and in light or dark colours; narrow is a phone."
        command, phone = self.driver.execute_cdp_cmd, width < 600
        command("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})
        command("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        self.driver.get("about:blank")    # or what the page before still asks for would count for this one
        self.clear()
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)

    def clear(self) -> None:
        "Forget the messages and requests so far."
        for log in ("browser", "performance"): self.driver.get_log(log)

    def run(self, script: str, *arguments: object) -> object:
        "Run JavaScript in the page and return what it returns; an argument is `arguments[0]` and so on."
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, seconds: float = 20) -> object:
        "Wait until an expression of JavaScript is true, and return its value; TimeoutException where it stays false."
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=.05).until(
            lambda driver: driver.execute_script(f"return {script}"), f"never true: {script}")

    def keys(self, *words: str) -> None:
        "Press keys, on whatever has the focus; a special one is named, such as TAB, ENTER or ARROW_DOWN."
        from selenium.webdriver import ActionChains, Keys

        chain = ActionChains(self.driver, duration=0)
        for word in words: chain.send_keys(getattr(Keys, word, word))
        chain.perform()

    def drag(self, points: list[tuple[float, float]], key: str | None = None) -> None:
        "Press the button at the first point of the viewport, move through the others and let go; one point: only move there."
        from selenium.webdriver import ActionChains, Keys
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        def act(what: str, *place: float) -> None:
            builder = ActionBuilder(self.driver, duration=20)
            getattr(builder.pointer_action, what)(*map(int, place))
            builder.perform()

        if key: ActionChains(self.driver).key_down(getattr(Keys, key)).perform()
        act("move_to_location", *points[0])
        if len(points) > 1:
            act("pointer_down")
            for start, end in zip(points, points[1:]):    # a hand passes through what lies between
                for share in (.2, .4, .6, .8, 1):
                    act("move_to_location", *(a + share * (b - a) for a, b in zip(start, end)))
                    self.driver.execute_async_script(FRAME)    # of two moves in one frame, a page hears of the last alone
            act("pointer_up")
        if key: ActionChains(self.driver).key_up(getattr(Keys, key)).perform()

    def touch(self, points: list[tuple[float, float]]) -> None:
        "Put a finger on the first point of the viewport, move it through the others and lift it; one point: a tap."
        def tell(kind: str, *places: tuple[float, float]) -> None:
            fingers = [{"x": round(x), "y": round(y)} for x, y in places]
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

        tell("touchStart", points[0])
        for start, end in zip(points, points[1:]):
            for share in (.2, .4, .6, .8, 1):
                tell("touchMove", tuple(a + share * (b - a) for a, b in zip(start, end)))
                time.sleep(.02)    # a screen tells of a finger sixty times a second, no faster
        tell("touchEnd")

    def faint(self, least: float = 4.5) -> list[str]:
        "Shown texts whose contrast with their ground is below what WCAG 2.2 asks of text (1.4.3); text over pictures is not judged."
        return self.run(CONTRAST, least)

    def errors(self) -> list[str]:
        "What the console called an error since the page was opened."
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        "Addresses asked for since the page was opened, other than files of this machine and what stands in the page itself."
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:", "chrome:"))]

    def picture(self, path: Path) -> Path:
        "Save what the window shows as a PNG file."
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.get_screenshot_as_file(str(path))
        return path

    def close(self) -> None:
        "End the browser."
        self.driver.quit()
