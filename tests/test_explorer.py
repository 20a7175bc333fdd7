"""The explorer's page in a real browser: from disk, with the network cut, on a desk and on a phone, in light and dark."""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser import SETTINGS, Browser
from sarclip.explore.atlas import Atlas
from sarclip.explore.maps import map_quality
from sarclip.explore.page import explorer_page

CLASSES = ("a <b>tank</b>", "<script>alert(1)</script>", "ship & 'boat'")
EACH = 60                       # images a class
SHOTS = Path("shots")           # in the test's folder; with `pytest --basetemp=DIR` they can be looked at afterwards


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    "Three classes in three clusters, markup in every text; a chip's brightness tells its class."
    rng = np.random.default_rng(0)
    y = np.repeat(range(3), EACH)
    n = len(y)
    centres = {"untrained": np.array([[-6, 4], [6, 4], [0, -6]]), "stage 2": np.array([[6, -4], [0, 6], [-6, -4]])}
    maps = {("t-SNE", stage): (centre[y] + rng.uniform(-1, 1, (n, 2))).astype(np.float32) for stage, centre in centres.items()}
    names = np.array(CLASSES)[y]
    points = pd.DataFrame({
        "image_id": [f"made-up/<i>{i}</i>.png" for i in range(n)], "class": names, "source": "a \"source\"", "split": "test", "tests": "made-up",
        "caption": [f"</script><img src=x onerror=alert(1)> no. {i}" for i in range(n)], "prediction": names, "score": rng.permutation(n) / n,
        "answer": np.where(rng.random(n) < .8, "right", "wrong")})
    images = (rng.integers(0, 40, (n, 64, 64, 1)) + 70 * y[:, None, None, None]).astype(np.uint8)
    near = {stage: np.stack([np.delete(np.flatnonzero(y == y[i]), np.flatnonzero(y == y[i]) == i)[:5] for i in range(n)]) for stage in centres}
    quality = {key: map_quality(coords, coords, list(names)) for key, coords in maps.items()}
    return Atlas(points, images, maps, quality, near, ["find the <b>ship</b>", "find the tank"], np.stack([(y == 2) + rng.random(n) / 9, (y == 0) + rng.random(n) / 9]))


@pytest.fixture(scope="module")
def page(atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explorer_page(atlas, tmp_path_factory.mktemp("explorer") / "explorer.html", "A <b>map</b> & more")


# What the page holds is put back as it was when it was opened, so that the tests of one setting share one opening.
FRESH = """
const by = (id) => document.getElementById(id), choose = (id) => { by(id).selectedIndex = 0; };
["projection", "colour", "phrase", "sort"].forEach(choose);
[...document.getElementsByName("stage")].at(-1).checked = true;
document.querySelector("input[value=panZoom]").click();
by("words").value = "";
explorer.hidden.forEach((codes) => codes.clear());
explorer.picked = undefined;
explorer.map.at = -1;
by("picked").replaceChildren();
explorer.put([]);
explorer.out();
explorer.filter();
by("plot").scrollIntoView({ block: "center" });
return explorer.redraw().then(() => explorer.map.whole()).then(() => true);
"""


@dataclass(frozen=True)
class Shown:
    "The page, opened at a width and in a colour scheme; where a mouse would hover, click or draw, a phone is touched."
    browser: Browser
    width: int
    dark: bool

    @property
    def phone(self) -> bool: return self.width < 600

    def run(self, script: str, *arguments: object) -> object: return self.browser.run(script, *arguments)

    def wait(self, script: str) -> object: return self.browser.wait(script)

    def keys(self, *words: str) -> None: self.browser.keys(*words)

    def place(self, row: int) -> tuple[float, float]:
        "Where a point is drawn, in pixels of the viewport."
        x, y = self.run("const b = document.getElementById('canvas').getBoundingClientRect(), p = explorer.map.place(arguments[0]);"
                        "return [b.x + p[0], b.y + p[1]]", row)
        return x, y

    def point_at(self, x: float, y: float) -> None:
        "Hover, or tap."
        (self.browser.touch if self.phone else self.browser.drag)([(x, y)])

    def click(self, x: float, y: float) -> None:
        "Click, or tap."
        if self.phone: self.browser.touch([(x, y)])
        else: self.browser.drag([(x, y), (x, y)])

    def draw(self, points: list[tuple[float, float]]) -> None:
        "Draw a line with the button pressed, or with a finger."
        (self.browser.touch if self.phone else self.browser.drag)(points)

    def chosen(self) -> list[int]:
        "Rows of the chips in the gallery, in the order they stand."
        return self.run("return [...document.querySelectorAll('#chips button')].map((b) => +b.dataset.index)")

    def set_value(self, name: str, value: str) -> None:
        "Choose in a list."
        self.run("const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change', {bubbles: true}))", name, value)


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda s: f"{s[0]}-{'dark' if s[1] else 'light'}")
def setting(request: pytest.FixtureRequest, browser: Browser, page: Path) -> Shown:
    "The page, opened once at a width and in one of both colour schemes."
    width, dark = request.param
    browser.open(page, width=width, dark=dark)
    browser.wait("window.firstDraw")
    return Shown(browser, width, dark)


@pytest.fixture
def opened(setting: Shown) -> Iterator[Shown]:
    "The page as it was when it was opened; whatever a test does with it, nothing is fetched and the console stays free of errors."
    setting.run(FRESH)
    yield setting
    assert setting.browser.errors() == [] and setting.browser.requests() == []


def test_fits_and_can_be_read(setting: Shown, tmp_path: Path) -> None:
    browser = setting.browser
    setting.keys("TAB")
    assert setting.run("return document.activeElement.id") == "projection", "the first thing that tabbing reaches"
    assert setting.run("return document.documentElement.scrollWidth") <= setting.width, "the page is wider than the window"
    assert setting.run("return document.title") == "A <b>map</b> & more"
    setting.run("document.getElementById('plot').scrollIntoView()")
    box = setting.run("const b = document.getElementById('plot').getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom]")
    shot = browser.picture(tmp_path / SHOTS / f"{setting.width}-{setting.dark}.png")
    pixels = np.asarray(Image.open(shot).convert("RGB").crop([round(v) for v in box]), dtype=int)
    ground = pixels[-8:-4, 8:12].reshape(-1, 3).mean(0)
    assert (ground.mean() < 60) == setting.dark, "the map's ground follows the reader's colours"
    far = np.abs(pixels - ground).sum(-1) > 60
    assert .002 < far[4:-4, 4:-4].mean() < .5, "points are drawn"
    for row in (0, EACH, 2 * EACH):    # every cluster is inside the view
        x, y = setting.place(row)
        assert box[0] < x < box[2] and box[1] < y < box[3]
    setting.run("explorer.pick(3); explorer.put([0, 1, 2]); explorer.over(3); document.getElementById('help').open = true")
    setting.wait("document.querySelectorAll('canvas.chip').length === document.querySelectorAll('canvas.chip[data-drawn]').length")
    assert browser.faint() == []
    assert setting.run("return document.documentElement.scrollWidth") <= setting.width, "a filled page is wider than the window"
    browser.driver.get_screenshot_as_file(str(shot.with_stem(shot.stem + "-filled")))
    setting.run("document.getElementById('help').open = false")
    assert browser.errors() == [] and browser.requests() == []


def test_pointing_shows_the_picture_and_markup_as_text(opened: Shown) -> None:
    opened.point_at(*opened.place(EACH + 7))
    opened.wait("!document.getElementById('tip').hidden && document.querySelector('#tip canvas').dataset.drawn")
    grey = opened.run("const c = document.querySelector('#tip canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                      "let s = 0; for (let i = 0; i < d.length; i += 4) s += d[i]; return s * 4 / d.length")
    assert abs(grey - 90) < 12, "the chip is one of the class pointed at"    # 0 to 39, and 70 more for the second class
    text = opened.run("return document.getElementById('tip').textContent")
    assert "<script>alert(1)</script>" in text and "</script><img src=x onerror=alert(1)>" in text
    assert opened.run("return document.querySelectorAll('b, i, img[src=x]').length") == 0
    tip, plot = (opened.run("const b = document.getElementById(arguments[0]).getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom]", name) for name in ("tip", "plot"))
    assert plot[0] <= tip[0] and plot[1] <= tip[1] and tip[2] <= plot[2] and tip[3] <= plot[3], "a part of it is cut off"
    opened.point_at(plot[0] + 6, plot[3] - 6)    # no point is there
    opened.wait("document.getElementById('tip').hidden")


def test_lasso_fills_the_gallery(opened: Shown) -> None:
    opened.run("document.querySelector('input[value=lasso]').click()")
    corners = np.array([opened.place(row) for row in range(EACH)])
    (left, top), (right, bottom) = corners.min(0) - 9, corners.max(0) + 9
    opened.draw([(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 4)])
    opened.wait(f"document.querySelectorAll('#chips button').length === {EACH}")
    assert set(opened.chosen()) == set(range(EACH)), "all of the first class and nothing else"
    assert f"{EACH} in the gallery" in opened.run("return document.getElementById('status').textContent")


def test_switching_the_encoder_moves_points_and_they_keep_their_identity(opened: Shown, atlas: Atlas) -> None:
    opened.run("explorer.toggle(3); explorer.pick(3)")
    before = np.array([opened.place(row) for row in (3, EACH + 3)])
    opened.run("document.querySelector('input[value=untrained]').click()")
    opened.wait(f"Math.abs(explorer.map.place(3)[0] - {before[0, 0]}) > 50")
    opened.wait("new Promise((done) => setTimeout(done, 900, true))")    # the transition ends
    after = np.array([opened.place(row) for row in (3, EACH + 3)])
    wanted = atlas.maps["t-SNE", "untrained"][[3, EACH + 3]]
    assert np.all((after[1] - after[0]) * [1, -1] * (wanted[1] - wanted[0]) >= 0), "points lie where the other map has them"
    assert np.abs(after - before).max() > 50 and opened.chosen() == [3]
    assert "untrained" in opened.run("return document.querySelector('#picked h3').textContent")
    assert "untrained" in opened.run("return document.getElementById('quality').textContent")


def test_dragging_moves_the_map_as_far_as_the_pointer(opened: Shown) -> None:
    x, y = opened.place(0)
    opened.draw([(x - 60, y - 60), (x - 100, y - 30)])
    opened.wait("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    assert np.allclose(opened.place(0), (x - 40, y + 30), atol=9)    # the first move may be kept back by a frame


def test_a_picked_image_shows_its_stored_neighbours(opened: Shown, atlas: Atlas) -> None:
    place = opened.place(2 * EACH + 5)
    opened.click(*place)
    opened.wait("document.querySelectorAll('#picked .chips button').length")
    assert np.allclose(opened.place(2 * EACH + 5), place, atol=1), "picking moved the map"
    found = opened.run("return explorer.picked")
    near = opened.run("return [...document.querySelectorAll('#picked .chips button')].map((b) => +b.dataset.index)")
    assert found >= 2 * EACH and near == atlas.neighbours["stage 2"][found].tolist()


def test_sorting_sorts(opened: Shown, atlas: Atlas) -> None:
    opened.run("document.getElementById('take').click()")
    before = opened.chosen()
    opened.set_value("sort", "score")
    scores = atlas.points.score[opened.chosen()].to_numpy()
    assert opened.chosen() != before and len(scores) >= 60 and (np.diff(scores) >= 0).all()
    opened.run("document.getElementById('more').click()")
    assert len(opened.chosen()) == 3 * EACH


def test_a_phrase_lights_up_what_it_finds(opened: Shown, atlas: Atlas) -> None:
    opened.set_value("phrase", "0")
    opened.wait("document.querySelectorAll('#chips button').length")
    found = opened.chosen()
    assert len(found) == 24 and min(found) >= 2 * EACH, "ships, and nothing else"
    assert (np.diff(atlas.similarity[0][found]) <= .01).all(), "the nearest first"
    assert opened.run("return document.getElementById('colour').value") == "similarity"
    assert "find the <b>ship</b>" in opened.run("return document.getElementById('key').textContent")


def test_words_and_legend_hide_points(opened: Shown) -> None:
    opened.run("const w = document.getElementById('words'); w.value = 'TANK'; w.dispatchEvent(new Event('input'))")
    assert opened.run("return explorer.shown") == list(range(EACH))
    opened.run("const w = document.getElementById('words'); w.value = ''; w.dispatchEvent(new Event('input'));"
               "[...document.querySelectorAll('#key input')][0].click()")
    hidden = opened.run("return document.querySelector('#key li').textContent")
    assert len(opened.run("return explorer.shown")) == 2 * EACH and any(name in hidden for name in CLASSES)


def test_the_keyboard_alone_is_enough(opened: Shown) -> None:
    def tab_to(wanted: str) -> None:
        for _ in range(40):
            if opened.run("return document.activeElement.id") == wanted: return
            opened.keys("TAB")
        raise AssertionError(f"{wanted} is not reached by tabbing")

    opened.run("document.getElementById('projection').focus()")    # where tabbing begins
    tab_to("phrase")
    opened.keys("ARROW_DOWN")
    opened.wait("document.querySelectorAll('#chips button').length === 24")
    tab_to("take")
    opened.keys("SPACE")
    opened.wait("explorer.selected.length === 180")
    tab_to("canvas")
    opened.keys("ARROW_RIGHT")
    opened.wait("!document.getElementById('tip').hidden")
    first = opened.run("return explorer.map.at")
    opened.keys("ARROW_LEFT")
    assert opened.run("return explorer.map.at") != first
    opened.keys("ENTER")
    opened.wait("document.querySelectorAll('#picked .chips button').length === 5")
    opened.keys("ESCAPE")
    opened.wait("explorer.selected.length === 0")
    opened.keys("SPACE")
    opened.wait("explorer.selected.length === 1")
    near = opened.run("return explorer.map.plot.get('cameraDistance')")
    opened.keys("+")
    opened.wait(f"explorer.map.plot.get('cameraDistance') < {near}")
    opened.keys("0")
    opened.wait(f"Math.abs(explorer.map.plot.get('cameraDistance') - {near}) < 1e-6")
    tab_to("sort")
    opened.keys("ARROW_DOWN")
