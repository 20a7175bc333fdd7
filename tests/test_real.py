"""The real archives through manifest and readers: the counts that everything else rests on."""
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from PIL import Image

from sarclip.captions.outputs import write_csv
from sarclip.core.files import unpack
from sarclip.core.records import records_to_frame
from sarclip.data.formats.masks import read_masks
from sarclip.data.manifest import load_manifest
from sarclip.data.prepare import prepare
from sarclip.data.split import evaluation_parts
from sarclip.core.problems import Problems
from sarclip.data.pixels import check_images, load_pixels
from sarclip.data.reading import read_dataset

COUNTS = {    # images, train, val
    "mstar": (12_309, 2_747, 2_425), "sample": (274, 208, 0), "mstar_scenes": (300, 300, 0), "sar_acd": (3_032, 0, 0), "rsscn7": (2_800, 2_502, 298)}
EVALUATIONS = {"mstar_soc": (2_747, 2_425), "mstar_eoc2_config": (996, 2_710), "mstar_eoc2_version": (996, 3_569), "sar_acd": (1_516, 1_516)}


@pytest.fixture(scope="module")
def problems() -> Problems:
    "What was wrong with the archives."
    return Problems()


@pytest.fixture(scope="module")
def datasets(real_data: Path, tmp_path_factory: pytest.TempPathFactory, problems: Problems):
    "Every archive unpacked, and its records."
    folder, manifest = tmp_path_factory.mktemp("real"), load_manifest()
    found = {}
    for name in (*COUNTS, "opensarship"):
        release = prepare(manifest.datasets[name], real_data, folder)
        found[name] = list(check_images(read_dataset(name, manifest.datasets[name], release, folder / name, problems), folder / name, problems))
    return folder, manifest, found


def test_counts_and_splits(datasets):
    _, _, found = datasets
    for name, (images, train, val) in COUNTS.items():
        parts = Counter(r.split for r in found[name])
        assert (len(found[name]), parts["train"], parts["val"]) == (images, train, val), name


def test_protocols(datasets):
    _, manifest, found = datasets
    for name, counts in EVALUATIONS.items():
        task = manifest.evaluations[name]
        assert tuple(map(len, evaluation_parts(found[task.dataset], task))) == counts, name


def test_no_evaluation_image_is_trained_on(datasets):
    _, manifest, found = datasets
    for name in EVALUATIONS:
        task = manifest.evaluations[name]
        test = {r.image_id for r in evaluation_parts(found[task.dataset], task)[1]}
        assert not [r.image_id for r in found[task.dataset] if r.split == "train" and r.image_id in test]
    assert not [r for r in found["sample"] if r.split == "train" and r.sensor["depression"] == 15], "SAMPLE at 15 degrees is MSTAR's test set"
    products = {split: {r.sensor["product"] for r in found["opensarship"] if r.split == split} for split in ("train", "val")}
    assert products["train"] and products["val"] and not products["train"] & products["val"]


def test_boxes_past_the_image_are_clipped_and_reported(datasets, problems):
    """About one box in nine of the scenes; nothing else is wrong with any archive."""
    folder, manifest, found = datasets
    assert {(p.dataset, p.kind, p.dropped) for p in problems} == {("mstar_scenes", "box_clipped", False)} and problems.counts().n.tolist() == [53]
    boxes = [(b, r.size) for r in found["mstar_scenes"] for b in r.boxes]
    assert len(boxes) == 476 and all(0 <= b.x0 < b.x1 <= width and 0 <= b.y0 < b.y1 <= height for b, (width, height) in boxes)
    with pytest.raises(ValueError, match="000001.jpg, box 2: box .* reaches past the image"):
        list(read_dataset("mstar_scenes", manifest.datasets["mstar_scenes"], manifest.datasets["mstar_scenes"].release("voc_jpeg"), folder / "mstar_scenes"))


def test_every_sample_chip_parses(datasets):
    _, _, found = datasets
    for r in found["sample"]:
        assert r.labels[0] in r.path and r.sensor["depression"] in (14, 15, 16, 17) and 0 <= r.sensor["azimuth"] < 360 and r.sensor["serial"] and r.sensor["mode"] == "measured", r.path


def test_every_opensarship_archive_yields_its_chips(datasets):
    folder, _, found = datasets
    chips = {p.relative_to(folder / "opensarship").as_posix() for p in (folder / "opensarship").rglob("Patch_Uint8/*.tif")}
    assert {r.path for r in found["opensarship"]} == chips and len(chips) == 318


def test_boxes_of_sarbake_cover_the_target(datasets, real_data, tmp_path):
    """Label 1 is the target, 2 its shadow: the chip is brighter under 1 and darker under 2 than around them, and its brightest pixel is under 1."""
    folder, _, found = datasets
    unpack(real_data / "mstar_sarbake.tar", tmp_path / "masks")
    records = list(read_masks(tmp_path / "masks", "sarbake", {"image": "{folder}{name}.jpeg", "mask": "sarbake/{folder}{name}.png", "classes": {1: "target", 2: "shadow"}}))
    chips = {(r.labels[0], Path(r.path).name): r for r in found["mstar"]}
    assert len(records) == 6_875
    darker = []
    for record in records[::25]:
        pixels = load_pixels(folder / "mstar", chips[tuple(record.path.split("/"))])
        mask = np.asarray(Image.open(tmp_path / "masks" / "sarbake" / record.path.replace(".jpeg", ".png")))
        pixels, mask = (a[:min(pixels.shape[0], mask.shape[0]), :min(pixels.shape[1], mask.shape[1])] for a in (pixels, mask))    # some differ by a pixel
        covered = np.zeros(mask.shape, bool)
        for b in record.boxes:
            if b.label == "target": covered[int(b.y0):int(b.y1), int(b.x0):int(b.x1)] = True
        assert covered[mask == 1].all() and covered.mean() < .25 and pixels[covered].max() == pixels.max(), record.path
        assert pixels[mask == 1].mean() > 2 * pixels[mask == 0].mean(), record.path
        darker.append(pixels[mask == 2].mean() < pixels[mask == 0].mean())
    assert np.mean(darker) > .8    # the release's contrast enhancement hides some shadows


def test_opensarship_chips_say_type_length_and_polarisation(datasets):
    _, _, found = datasets
    assert len({r.sensor["product"] for r in found["opensarship"]}) == 6
    for r in found["opensarship"]: assert r.labels[0] and r.sensor["length"] > 0 and r.sensor["polarisation"] in ("VV", "VH"), r.path


def test_pixels_of_every_kind_read(datasets):
    folder, _, found = datasets
    for name, records in found.items():
        for record in records[:: max(1, len(records) // 20)]:
            pixels = load_pixels(folder / name, record)
            assert pixels.ndim in (2, 3) and np.ptp(pixels) > 0, record.path


def test_every_ship_chip_is_in_the_csv_for_open_clip(datasets, tmp_path):
    folder, _, found = datasets
    records = records_to_frame(found["opensarship"]).assign(root="opensarship")
    pairs = pd.DataFrame({"image_id": records.image_id, "caption": "A ship."})
    assert write_csv(pairs, records, folder, tmp_path / "train.csv") == len(records) == 318    # 8-bit TIFFs
    assert pd.read_csv(tmp_path / "train_left_out.csv").empty
