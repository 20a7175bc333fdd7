"""SARCLIP-1M at the paper's size: from annotations on disk to pairs.parquet, and the same with twice the images.

The 279,996 training images of Table I, source by source, with the manifest's real class lists: COCO JSON for SARDet-100K, Pascal VOC
XML for ATRNet-STAR and FAIR-CSAR, a caption CSV for SARLANG, class folders for the four sources of chips. Made-up boxes; no image is
opened. Goals: 30 s and 2 GiB on two cores, at most 2.2 times as long for twice the images. Proofreading is timed on its own.
"""
import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from sarclip.core.files import write_bytes
from sarclip.data.manifest import Manifest, Release, SplitRule, load_manifest

SIZES = {    # training images in Table I, and the reader that the benchmark gives each source
    "mstar": (3_046, "class_folders"), "sarsim": (21_168, "class_folders"), "opensarship": (26_679, "class_folders"), "sample": (5_380, "class_folders"),
    "atrnet_star": (68_091, "voc"), "sardet_100k": (94_493, "coco"), "fair_csar": (51_948, "voc"), "sarlang": (9_191, "sarlang")}
WIDTH = 512    # pixels, of every image with boxes
CORES = 2


def boxes(rng: np.random.Generator, classes: list[str], image: int) -> list[tuple[str, list[int]]]:
    "One to eight boxes of one or two classes, as the detection sources have them."
    few = [classes[i] for i in rng.choice(len(classes), min(2, len(classes)), replace=False)]
    n = 1 + min(7, int(rng.exponential(1.5)))
    corners, sides = rng.integers(0, WIDTH - 100, (n, 2)).tolist(), rng.integers(8, 100, (n, 2)).tolist()
    return [(few[i % 3 // 2 % len(few)], [*corner, *side]) for i, (corner, side) in enumerate(zip(corners, sides))]


def write_coco(root: Path, classes: list[str], n: int, rng: np.random.Generator) -> None:
    images = [{"id": i, "file_name": f"{i:07}.jpg", "width": WIDTH, "height": WIDTH} for i in range(n)]
    notes = [{"id": 0, "image_id": i, "category_id": classes.index(name), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
             for i in range(n) for name, box in boxes(rng, classes, i)]
    categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
    write_bytes(root / "Annotations" / "train.json", json.dumps({"images": images, "annotations": notes, "categories": categories}).encode())


def write_voc(root: Path, classes: list[str], n: int, rng: np.random.Generator) -> None:
    (root / "Annotations").mkdir(parents=True)
    for i in range(n):
        objects = "".join(f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                          f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>" for name, (x, y, w, h) in boxes(rng, classes, i))
        (root / "Annotations" / f"{i:07}.xml").write_text(f"<annotation><folder>JPEGImages</folder><filename>{i:07}.jpg</filename><size><width>{WIDTH}</width><height>{WIDTH}</height>"
                                                           f"<depth>1</depth></size><segmented>0</segmented>{objects}</annotation>")


def write_chips(root: Path, classes: list[str], n: int, rng: np.random.Generator) -> None:
    for label in classes: (root / label).mkdir(parents=True)
    for i in range(n): (root / classes[i % len(classes)] / f"{i:07}.png").write_bytes(b"\x89PNG\r\n\x1a\n")    # never opened


def write_captions(root: Path, classes: list[str], n: int, rng: np.random.Generator) -> None:
    places = "harbour river village forest road factory bridge airfield meadow coast".split()
    lines = ["image,caption"]
    for i in range(n):
        for k in range(4 if i % 2 else 3):    # 31,968 captions of 9,191 images in Table I
            a, b = rng.choice(len(places), 2, replace=False)
            lines.append(f"{i:07}.png,\"Image {i}: a {places[a]} beside a {places[b]}, seen from above ({k}).\"")
    write_bytes(root / "Text" / "caption" / "train.csv", "\n".join(lines).encode())


WRITERS = {"coco": write_coco, "voc": write_voc, "class_folders": write_chips, "sarlang": write_captions}


def manifest() -> Manifest:
    "The manifest with these sources alone, read as this benchmark writes them."
    known = load_manifest()
    sources = {name: known.datasets[name].model_copy(update={"split": [SplitRule(split="train", where={})], "releases": [Release(name="bench", kind="repack", reader=reader)]})
               for name, (_, reader) in SIZES.items()}
    return known.model_copy(update={"datasets": sources, "evaluations": {}})


def write_sources(folder: Path, times: int) -> None:
    "Annotations of every source, `times` the paper's images."
    for number, (name, dataset) in enumerate(manifest().datasets.items()):
        n, reader = SIZES[name]
        WRITERS[reader](folder / name, list(dataset.classes), n * times, np.random.default_rng(number))


def build(folder: Path) -> None:
    "What is measured, in a process of its own: read, caption, write."
    from sarclip.captions.build import build_tables
    from sarclip.captions.pairs import write_table

    sources = manifest()
    records, pairs = build_tables(sources, dict.fromkeys(sources.datasets, "bench"), folder, seed=0, workers=CORES, check_files=False)
    for name, table in (("records", records), ("pairs", pairs)): write_table(table, folder / f"{name}.parquet")
    print(json.dumps({"images": len(records), "captions": len(pairs), "distinct": pairs.caption.nunique()}))


def measure(times: int, scratch: str | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        started = time.perf_counter()
        write_sources(Path(name), times)
        print(f"wrote annotations of {times} × Table I in {time.perf_counter() - started:.0f} s", flush=True)
        started, peak = time.perf_counter(), 0
        with subprocess.Popen([sys.executable, __file__, "--build", name], stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                peak = max(peak, memory(psutil.Process(process.pid)))
                time.sleep(0.05)
            if process.returncode: sys.exit(f"the build ended with exit status {process.returncode}")
            return json.loads(process.stdout.read().splitlines()[-1]) | {"seconds": time.perf_counter() - started, "peak_gib": peak / 2**30}


def memory(process: psutil.Process) -> int:
    "Resident bytes of a process and all below it; pages they share count for each."
    total = 0
    for p in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess): total += p.memory_info().rss
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help="folder with about 2 GB free; the system's temporary folder otherwise")
    arguments = parser.parse_args()
    if arguments.build: return build(arguments.build)
    once, twice = measure(1, arguments.scratch), measure(2, arguments.scratch)
    print(f"{'':<12}{'images':>10}{'captions':>11}{'distinct':>10}{'seconds':>9}{'GiB':>6}")
    for label, run in (("Table I", once), ("twice that", twice)):
        print(f"{label:<12}{run['images']:>10,}{run['captions']:>11,}{run['distinct']:>10,}{run['seconds']:>9.1f}{run['peak_gib']:>6.2f}")
    ratio = twice["seconds"] / once["seconds"]
    print(f"twice the images take {ratio:.2f} times as long (goal: at most 2.2)")
    print(json.dumps({"images": once["images"], "captions": once["captions"], "seconds": round(once["seconds"], 1), "peak_gib": round(once["peak_gib"], 2),
                      "seconds_double": round(twice["seconds"], 1), "holds": once["seconds"] <= 30 and once["peak_gib"] <= 2 and ratio <= 2.2}))


if __name__ == "__main__": main()
