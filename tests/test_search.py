"""Search from end to end: a killed indexing goes on, a large scene fits into memory, everything else in a folder is passed over."""
import json
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sarclip.explore.index import INDEX, build_index, open_index
from sarclip.explore.results import write_geojson, write_page, write_sheet, write_table
from sarclip.explore.store import TileStore

SIZE, WIDTH, HERE = 16, 24, str(Path(__file__).parent)


class Projection:
    "A stand-in for both towers: a fixed random projection of pixels, and of letters."
    image_size, key = SIZE, "0" * 64

    def __init__(self, wait: float = 0):
        self.wait, self.seen = wait, 0
        self.matrix = np.random.default_rng(0).standard_normal((SIZE * SIZE, WIDTH)).astype(np.float32)

    def images(self, pictures):
        time.sleep(self.wait)
        self.seen += len(pictures)
        return self._unit(pictures.astype(np.float32).mean(-1).reshape(len(pictures), -1) @ self.matrix)

    def texts(self, texts):
        return self._unit(np.stack([np.bincount(np.frombuffer(t.encode(), np.uint8), minlength=256).astype(np.float32) @ self.matrix for t in texts]))

    def _unit(self, x): return x / np.linalg.norm(x, axis=1, keepdims=True)


SLOWLY = """
import sys
sys.path.insert(0, sys.argv[2])
from sarclip.explore.index import build_index
from test_search import Projection
build_index(Projection(wait=.05), sys.argv[1], tile=64, overlap=0, batch_size=4, progress=False)
"""


@pytest.fixture
def pictures(tmp_path):
    "Twenty chips and a scene of twenty tiles, all different."
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(20): Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(folder / f"{i:02}.png")
    Image.fromarray(rng.integers(0, 256, (256, 320), np.uint8)).save(folder / "zz_scene.png")
    return folder


def contents(store):
    "Vector of each tile, by file and corner: what an index says, whatever the order it was written in."
    rows = store._db.execute("SELECT path, x, y, value FROM tiles JOIN files ON files.id = file JOIN vectors ON tile = tiles.id")
    return {(path, x, y): value for path, x, y, value in rows}


@pytest.mark.parametrize("after", [6, 26], ids=["among the chips", "inside the scene"])
def test_killed_indexing_keeps_what_was_committed_and_goes_on(pictures, tmp_path, after):
    child = subprocess.Popen([sys.executable, "-c", SLOWLY, str(pictures), HERE])
    deadline, path = time.monotonic() + 120, pictures / INDEX
    while time.monotonic() < deadline and child.poll() is None:
        if path.is_file() and len(TileStore.open(path)) >= after: break
        time.sleep(.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the child ended before it was killed"
    committed = contents(TileStore.open(path))
    assert after <= len(committed) < 40
    model = Projection()
    result = build_index(model, pictures, batch_size=4, progress=False)
    assert model.seen == result.tiles == 40 - len(committed)    # nothing is encoded twice
    whole = contents(build_index(Projection(), pictures, tmp_path / "other.sqlite", 64, 0, batch_size=4, progress=False).index.store)
    now = contents(result.index.store)
    assert now.keys() == whole.keys() and all(now[tile] == vector for tile, vector in committed.items())
    for tile, vector in whole.items():
        np.testing.assert_allclose(np.frombuffer(now[tile], np.float32), np.frombuffer(vector, np.float32), atol=1e-6)


def test_two_processes_that_index_at_once_make_one_index(pictures):
    child = subprocess.Popen([sys.executable, "-c", SLOWLY, str(pictures), HERE])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None and not (pictures / INDEX).is_file(): time.sleep(.01)
    build_index(Projection(wait=.05), pictures, batch_size=4, progress=False)
    assert child.wait(120) == 0
    store = open_index(Projection(), pictures).store
    assert len(contents(store)) == len(store) == 40 and all(f.complete for f in store.files().values())


class Together(Projection):
    "Two that meet after each has seen that there is no index yet."

    def __init__(self, both: threading.Barrier):
        super().__init__()
        self.both = both

    def texts(self, texts):
        self.both.wait(60)
        return super().texts(texts)


def test_two_that_begin_one_index_at_the_same_moment_share_it(pictures):
    both, done = threading.Barrier(2), []
    def index() -> None:
        result = build_index(Together(both), pictures, tile=64, overlap=0, batch_size=4, progress=False)
        done.append((result.index.store.about["id"], result.tiles))
        result.index.store.close()
    threads = [threading.Thread(target=index) for _ in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join(120)
    store = TileStore.open(pictures / INDEX)
    assert [about for about, _ in done] == [store.about["id"]] * 2    # neither wrote into a file that the other replaced
    assert len(contents(store)) == len(store) == 40 and not list((pictures / INDEX).parent.glob("*.part"))


def test_without_faiss_a_large_folder_is_refused_before_it_is_encoded(pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)    # as if it were not installed
    monkeypatch.setattr("sarclip.explore.store.EXACT_UP_TO", 39)
    model = Projection()
    with pytest.raises(ImportError, match=r"are more than the 39 that are searched without FAISS: pip install 'sarclip\[search\]', then index the folder again"):
        build_index(model, pictures, tile=64, overlap=0, batch_size=4, progress=False)
    assert model.seen == len(TileStore.open(pictures / INDEX)) == 36    # a PNG does not say before how many tiles it makes; what fits is kept
    (pictures / INDEX).unlink()
    Image.open(pictures / "zz_scene.png").save(pictures / "zz_scene.tif")
    model = Projection()
    with pytest.raises(ImportError, match="holds 0 tiles, and with the next 41"): build_index(model, pictures, tile=64, overlap=0, progress=False)
    assert model.seen == 0
    monkeypatch.delitem(sys.modules, "faiss")
    assert len(build_index(model, pictures, progress=False).index) == 60


def test_a_folder_as_people_have_them(pictures, tmp_path):
    (pictures / "notes.txt").write_text("notes")
    (pictures / "empty.png").touch()
    (pictures / "half.png").write_bytes((pictures / "zz_scene.png").read_bytes()[:2000])
    (pictures / "page.jpg").write_text("<html>no picture</html>")
    (pictures / "link.png").symlink_to(tmp_path / "elsewhere.png")
    np.save(pictures / "floats.npy", np.random.default_rng(0).gamma(1, 300, (40, 50)))
    result = build_index(Projection(), pictures, tile=64, overlap=0, progress=False)
    assert (result.added, result.others, len(result.index)) == (22, 1, 41)
    sentences = {p.where: p.what for p in result.problems}
    assert sorted(sentences) == ["empty.png", "half.png", "link.png", "page.jpg"]
    assert all(str(tmp_path) not in s and "\n" not in s for w, s in sentences.items() if w != "link.png")
    hit = result.index.search(pictures / "07.png", 3).iloc[0]
    assert hit.path == "07.png" and hit.similarity == pytest.approx(1, abs=1e-5)


def write_scene(path, width, height, dtype):
    "A GeoTIFF in UTM zone 33 of speckle with one bright square, written in blocks."
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin
    from rasterio.windows import Window
    rng = np.random.default_rng(0)
    block = rng.gamma(1, 100, (512, width)).astype(dtype)
    with rasterio.open(path, "w", "GTiff", width, height, 1, dtype=dtype, crs="EPSG:32633", tiled=True, blockxsize=512, blockysize=512,
                       transform=from_origin(500_000, 5_800_000, 10, 10), BIGTIFF="IF_SAFER") as file:
        for row in range(0, height, 512):
            part = block[:min(512, height - row)]
            if row == 1024: part = part.copy(); part[100:164, 2100:2164] *= 40
            file.write(part, 1, window=Window(0, row, width, len(part)))


def test_results_of_a_scene_lie_where_it_lies(tmp_path):
    (tmp_path / "in").mkdir()
    write_scene(tmp_path / "in" / "scene.tif", 4300, 4000, "uint16")    # above the size that is read whole
    index = build_index(Projection(), tmp_path / "in", overlap=0, progress=False).index
    tile = index.store.files()["scene.tif"]
    assert tile.tone == "percentile" and len(index) == 9 * 8
    with warnings.catch_warnings(action="error"): hits = index.search("a bright square", 99)
    there = hits[(hits.x == 2048) & (hits.y == 1024)].iloc[0]
    assert (there.west, there.north) == (500_000 + 20_480, 5_800_000 - 10_240)
    write_geojson(hits, tmp_path / "hits.geojson"), write_table(hits, tmp_path / "hits.csv")
    write_page(index, hits.head(3), tmp_path / "hits.html", "a bright square"), write_sheet(index, hits.head(3), tmp_path / "hits.png")
    shapes = json.loads((tmp_path / "hits.geojson").read_text())["features"]
    assert len(shapes) == 72 and all(s["geometry"]["type"] == "Polygon" for s in shapes)
    rows = (tmp_path / "hits.csv").read_text().splitlines()
    assert len(rows) == 73 and rows[0].startswith("rank,similarity,path,x,y")
    assert Image.open(tmp_path / "hits.png").format == "PNG" and (tmp_path / "hits.html").read_text().count("<img") == 3


MEASURED = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from sarclip.explore.index import build_index
from test_search import Projection
print(len(build_index(Projection(), sys.argv[1], progress=False).index), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint16", "complex64"])
def test_a_scene_of_two_gigabytes_is_tiled_within_two_gibibytes(tmp_path, dtype):
    side, scene = int((2e9 / np.dtype(dtype).itemsize) ** .5) + 1, tmp_path / "scene.tif"
    try:
        write_scene(scene, side, side, dtype)
        assert scene.stat().st_size >= 2e9
        output = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path), HERE], check=True, stdout=subprocess.PIPE, text=True).stdout
    finally: scene.unlink(missing_ok=True)    # pytest keeps its folders for a while
    tiles, gib = output.split()
    print(f"{dtype}: {tiles} tiles, {float(gib):.2f} GiB at most")
    assert int(tiles) > 1000 and float(gib) < 2
