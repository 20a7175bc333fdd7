"""The explorer's page in a real browser: from disk, with the network cut."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser import Browser
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


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.open(page)
    browser.wait("window.firstDraw")
    return browser


def place(browser: Browser, row: int) -> tuple[float, float]:
    "Where a point is drawn, in pixels of the viewport."
    x, y = browser.run("const b = document.getElementById('canvas').getBoundingClientRect(), p = explorer.map.place(arguments[0]);"
                       "return [b.x + p[0], b.y + p[1]]", row)
    return x, y


def chosen(browser: Browser) -> list[int]:
    "Rows of the chips in the gallery, in the order they stand."
    return browser.run("return [...document.querySelectorAll('#chips button')].map((b) => +b.dataset.index)")


def set_value(browser: Browser, name: str, value: str) -> None:
    browser.run("const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change', {bubbles: true}))", name, value)


def nothing_went_wrong(browser: Browser) -> None:
    assert browser.errors() == [] and browser.requests() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_opens_from_disk_at_every_width_and_in_both_colours(browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    browser.wait("window.firstDraw")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    assert browser.run("return document.title") == "A <b>map</b> & more"
    browser.run("document.getElementById('plot').scrollIntoView()")
    box = browser.run("const b = document.getElementById('plot').getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom]")
    pixels = np.asarray(Image.open(browser.picture(tmp_path / SHOTS / f"{width}-{dark}.png")).convert("RGB").crop([round(v) for v in box]), dtype=int)
    ground = pixels[-8:-4, 8:12].reshape(-1, 3).mean(0)
    assert (ground.mean() < 60) == dark, "the map's ground follows the reader's colours"
    far = np.abs(pixels - ground).sum(-1) > 60
    assert .002 < far[4:-4, 4:-4].mean() < .5, "points are drawn"
    for row in (0, EACH, 2 * EACH):    # every cluster is inside the view
        x, y = place(browser, row)
        assert box[0] < x < box[2] and box[1] < y < box[3]
    nothing_went_wrong(browser)


def test_hover_shows_the_picture_and_markup_as_text(opened: Browser, atlas: Atlas) -> None:
    row = EACH + 7
    opened.drag([place(opened, row)])
    opened.wait("!document.getElementById('tip').hidden && document.querySelector('#tip canvas').dataset.drawn")
    grey = opened.run("const c = document.querySelector('#tip canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                      "let s = 0; for (let i = 0; i < d.length; i += 4) s += d[i]; return s * 4 / d.length")
    assert abs(grey - 90) < 12, "the chip is one of the hovered class"    # 0 to 39, and 70 more for the second class
    text = opened.run("return document.getElementById('tip').textContent")
    assert "<script>alert(1)</script>" in text and "</script><img src=x onerror=alert(1)>" in text
    assert opened.run("return document.querySelectorAll('b, i, img[src=x]').length") == 0
    opened.drag([(1, 1)])
    opened.wait("document.getElementById('tip').hidden")
    nothing_went_wrong(opened)


def test_lasso_fills_the_gallery(opened: Browser) -> None:
    opened.run("document.querySelector('input[value=lasso]').click()")
    corners = np.array([place(opened, row) for row in range(EACH)])
    (left, top), (right, bottom) = corners.min(0) - 14, corners.max(0) + 14
    opened.drag([(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 4)])
    opened.wait(f"document.querySelectorAll('#chips button').length === {EACH}")
    assert set(chosen(opened)) == set(range(EACH)), "all of the first class and nothing else"
    assert f"{EACH} in the gallery" in opened.run("return document.getElementById('status').textContent")
    nothing_went_wrong(opened)


def test_switching_the_encoder_moves_points_and_they_keep_their_identity(opened: Browser, atlas: Atlas) -> None:
    opened.run("explorer.toggle(3); explorer.pick(3)")
    before = np.array([place(opened, row) for row in (3, EACH + 3)])
    opened.run("document.querySelector('input[value=untrained]').click()")
    opened.wait("Math.abs(explorer.map.place(3)[0] - arguments[0]) > 50".replace("arguments[0]", str(before[0, 0])))
    opened.wait("new Promise((done) => setTimeout(done, 900, true))")    # the transition ends
    after = np.array([place(opened, row) for row in (3, EACH + 3)])
    wanted = atlas.maps["t-SNE", "untrained"][[3, EACH + 3]]
    assert np.all((after[1] - after[0]) * [1, -1] * (wanted[1] - wanted[0]) >= 0), "points lie where the other map has them"
    assert np.abs(after - before).max() > 50 and chosen(opened) == [3]
    assert "untrained" in opened.run("return document.querySelector('#picked h3').textContent")
    assert "untrained" in opened.run("return document.getElementById('quality').textContent")
    nothing_went_wrong(opened)


def test_a_picked_image_shows_its_stored_neighbours(opened: Browser, atlas: Atlas) -> None:
    row = 2 * EACH + 5
    x, y = place(opened, row)
    opened.drag([(x, y), (x, y)])
    opened.wait("document.querySelectorAll('#picked .chips button').length")
    found = opened.run("return explorer.picked")
    near = opened.run("return [...document.querySelectorAll('#picked .chips button')].map((b) => +b.dataset.index)")
    assert found >= 2 * EACH and near == atlas.neighbours["stage 2"][found].tolist()
    nothing_went_wrong(opened)


def test_sorting_sorts(opened: Browser, atlas: Atlas) -> None:
    opened.run("document.getElementById('take').click()")
    before = chosen(opened)
    set_value(opened, "sort", "score")
    scores = atlas.points.score[chosen(opened)].to_numpy()
    assert chosen(opened) != before and len(scores) >= 60 and (np.diff(scores) >= 0).all()
    opened.run("document.getElementById('more').click()")
    assert len(chosen(opened)) == 3 * EACH
    nothing_went_wrong(opened)


def test_a_phrase_lights_up_what_it_finds(opened: Browser, atlas: Atlas) -> None:
    set_value(opened, "phrase", "0")
    opened.wait("document.querySelectorAll('#chips button').length")
    found = chosen(opened)
    assert len(found) == 24 and min(found) >= 2 * EACH, "ships, and nothing else"
    assert (np.diff(atlas.similarity[0][found]) <= .01).all(), "the nearest first"
    assert opened.run("return document.getElementById('colour').value") == "similarity"
    assert "find the <b>ship</b>" in opened.run("return document.getElementById('key').textContent")
    nothing_went_wrong(opened)


def test_words_and_legend_hide_points(opened: Browser) -> None:
    opened.run("const w = document.getElementById('words'); w.value = 'TANK'; w.dispatchEvent(new Event('input'))")
    assert opened.run("return explorer.shown") == list(range(EACH))
    opened.run("const w = document.getElementById('words'); w.value = ''; w.dispatchEvent(new Event('input'));"
               "[...document.querySelectorAll('#key input')][0].click()")
    hidden = opened.run("return document.querySelector('#key li').textContent")
    assert len(opened.run("return explorer.shown")) == 2 * EACH and any(name in hidden for name in CLASSES)
    nothing_went_wrong(opened)


def test_the_keyboard_alone_is_enough(opened: Browser) -> None:
    def tab_to(wanted: str) -> None:
        for _ in range(40):
            if opened.run("return document.activeElement.id") == wanted: return
            opened.keys("TAB")
        raise AssertionError(f"{wanted} is not reached by tabbing")

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
    nothing_went_wrong(opened)
