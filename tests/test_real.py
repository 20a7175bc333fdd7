"""The real archives through manifest and readers: the counts that everything else rests on."""
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sarclip.manifest import evaluation_parts, load_manifest, prepare
from sarclip.readers import load_pixels, read_dataset

COUNTS = {    # images, train, val
    "mstar": (12_309, 2_747, 2_425), "sample": (274, 208, 0), "mstar_scenes": (300, 300, 0), "sar_acd": (3_032, 0, 0), "rsscn7": (2_800, 2_502, 298)}
EVALUATIONS = {"mstar_soc": (2_747, 2_425), "mstar_eoc2_config": (996, 2_710), "mstar_eoc2_version": (996, 3_569), "sar_acd": (1_516, 1_516)}


@pytest.fixture(scope="module")
def datasets(real_data: Path, tmp_path_factory: pytest.TempPathFactory):
    "Every archive unpacked, and its records."
    folder, manifest = tmp_path_factory.mktemp("real"), load_manifest()
    found = {}
    for name in (*COUNTS, "opensarship"):
        release = prepare(manifest.datasets[name], real_data, folder)
        found[name] = list(read_dataset(name, manifest.datasets[name], release, folder / name))
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
