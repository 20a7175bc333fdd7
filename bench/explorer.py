"""The explorer's page with 20,000 images, and t-SNE of 8,161 × 768.

The page holds three stages in two projections, eight stored neighbours in each, 60 phrases, a caption an image, and chips under
one-look speckle, which is the hardest to compress. It is opened from disk in headless Chromium, which draws WebGL in software: a
machine with a graphics card is faster. First draw: from opening the file to the first frame of the map, best of three. Pan: the
pointer drags the map one step a frame, 60 frames; the median and the 95th percentile of a frame's time.
"""
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sarclip.core.files import project_root
from sarclip.explore.atlas import Atlas
from sarclip.explore.maps import tsne
from sarclip.explore.page import explorer_page

POINTS, PHRASES, NEAR, SIDE = 20_000, 60, 8, 64
STAGES, PROJECTIONS, CLASSES = ("untrained", "stage 1", "stage 2"), ("t-SNE", "UMAP"), 40

PAN = """
const done = arguments[0], canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect(), times = [];
const speak = (type, x) => canvas.dispatchEvent(new MouseEvent(type,
  {bubbles: true, view: window, clientX: box.x + x, clientY: box.y + 200, buttons: 1}));
speak("mouseenter", 300); speak("mousedown", 300);
let step = 0, last = performance.now();
requestAnimationFrame(function frame(now) {
  if (step) times.push(now - last);
  last = now;
  if (step++ > 60) { speak("mouseup", 300); done(times); return; }
  speak("mousemove", 300 + 3 * step);
  requestAnimationFrame(frame);
});
"""


def made_up_atlas() -> Atlas:
    "Points in 40 clusters with facts as long as real ones."
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, POINTS)
    maps = {}
    for projection in PROJECTIONS:
        for stage in STAGES: maps[projection, stage] = (rng.normal(0, 4, (CLASSES, 2))[y] + rng.normal(0, .6, (POINTS, 2))).astype(np.float32)
    names = np.array([f"vehicle or ship of kind {c}" for c in range(CLASSES)])
    points = pd.DataFrame({
        "image_id": [f"dataset_{c % 8}/folder_{c}/image_{i:05}.png" for i, c in enumerate(y)], "class": names[y],
        "source": [f"Source {c % 8}, a data set of SAR images" for c in y], "split": "val", "tests": "sarclip_1m test",
        "caption": [f"A SAR image of {rng.integers(2, 30)} {name}s in the {where} and {rng.integers(2, 9)} more to the {side} of them."
                    for name, where, side in zip(names[y], rng.choice(["center", "upper left", "lower right"], POINTS), rng.choice(["left", "right"], POINTS))],
        "prediction": names[(y + (rng.random(POINTS) < .2)) % CLASSES], "score": rng.random(POINTS), "answer": np.where(rng.random(POINTS) < .8, "right", "wrong")})
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    targets = np.stack([1 + 25 * np.exp(-(rows / (3 + c % 7)) ** 2 - (columns / (3 + c % 5)) ** 2) for c in range(CLASSES)]).astype(np.float32)
    images = np.empty((POINTS, SIDE, SIDE, 1), np.uint8)
    for i, c in enumerate(y): images[i, ..., 0] = np.clip(20 * np.sqrt(targets[c] * rng.exponential(size=(SIDE, SIDE))), 0, 255)
    similarity = rng.random((PHRASES, POINTS)) / 10 + .2 * (y == np.arange(PHRASES)[:, None] % CLASSES)
    near = {stage: rng.integers(0, POINTS, (POINTS, NEAR)) for stage in STAGES}
    return Atlas(points, images, maps, {}, near, [f"A SAR image of a {name} number {k}." for k, name in enumerate(np.resize(names, PHRASES))], similarity)


def measure_page(page: Path) -> dict[str, float | None]:
    "First draw in seconds, and a frame's time in milliseconds while the map is dragged; None without a browser."
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        print("Chromium or its driver is not installed: first draw and pan are not measured")
        return {"first_draw_s": None, "pan_ms": None, "pan_p95_ms": None}
    sys.path.insert(0, str(project_root() / "tests"))
    from browser import Browser

    browser = Browser(Path(tempfile.mkdtemp()))
    first = []
    for _ in range(3):
        browser.open(page)
        first.append(browser.wait("window.firstDraw", 60) / 1000)
    frames = browser.driver.execute_async_script(PAN)
    assert browser.errors() == [] and browser.requests() == [], "the page is not whole"
    browser.close()
    return {"first_draw_s": round(min(first), 2), "pan_ms": round(float(np.median(frames)), 1), "pan_p95_ms": round(float(np.percentile(frames, 95)), 1)}


def measure_tsne() -> dict[str, float]:
    "Seconds on the clock, and of computing, for as many points as the real study's tests have."
    rng = np.random.default_rng(0)
    features = .6 * rng.standard_normal((CLASSES, 768))[rng.integers(0, CLASSES, 8_161)] + rng.standard_normal((8_161, 768))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    started, computing = time.perf_counter(), time.process_time()
    tsne(features, seed=0)
    return {"tsne_s": round(time.perf_counter() - started, 1), "tsne_cpu_s": round(time.process_time() - computing, 1)}


def main() -> None:
    atlas = made_up_atlas()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        page = explorer_page(atlas, Path(folder) / "explorer.html", "20,000 made-up images")
        result = {"points": POINTS, "megabytes": round(page.stat().st_size / 1e6, 2), "write_s": round(time.perf_counter() - started, 1)}
        result |= measure_page(page)
    result |= measure_tsne()
    goals = {"megabytes": 12, "first_draw_s": 2, "pan_ms": 100, "tsne_s": 90}
    print(f"{POINTS:,} points\n{'what':<16}{'measured':>10}{'at most':>10}")
    for name, value in result.items():
        if name != "points": print(f"{name:<16}{'–' if value is None else value:>10}{goals.get(name, ''):>10}")
    print(json.dumps(result | {"holds": all(result[name] is not None and result[name] <= goal for name, goal in goals.items())}))


main()
