"""Round trips of the file formats on inputs nobody would think of: what a writer wrote is what its reader returns."""
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sarclip.formats.class_folders import read_class_folders, write_class_folders
from sarclip.formats.coco import read_coco, write_coco
from sarclip.formats.common import box_around, make_record
from sarclip.formats.dota import dota_path, read_dota, write_dota
from sarclip.formats.fair_csar import fair_csar_path, read_fair_csar, write_fair_csar
from sarclip.formats.karpathy import read_karpathy, write_karpathy
from sarclip.formats.masks import LOVEDA, boxes_of_mask, read_masks, write_masks
from sarclip.formats.mstar import facts_of_path, mstar_path, read_mstar, read_phoenix, write_mstar
from sarclip.formats.sarlang import read_sarlang, write_sarlang
from sarclip.formats.voc import read_voc, write_voc
from sarclip.records import Box

some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
PIXELS = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)

labels = st.text(st.characters(categories=("Lu", "Ll", "Nd"), include_characters="_-"), min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=("Cc", "Cs"), include_characters="\n\",;'<&"), min_size=1, max_size=60).map(str.strip).filter(bool)
coordinates = st.integers(-4000, 4000).map(lambda n: n / 16)
corners = st.lists(st.tuples(coordinates, coordinates), min_size=4, max_size=4)
oriented = st.lists(st.builds(box_around, labels, corners), max_size=4).map(tuple)
upright = st.lists(st.builds(lambda b: dataclasses.replace(b, polygon=None), st.builds(box_around, labels, corners)), max_size=4).map(tuple)

def same(write, read, record, dataset="x"):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), [(record, PIXELS)])
        assert list(read(Path(folder), dataset)) == [record]

@some
@given(upright)
def test_coco(boxes): same(write_coco, read_coco, make_record("x", "JPEGImages/train/a.png", size=(16, 12), task="det", boxes=boxes, split="train"))

@some
@given(upright)
def test_voc(boxes): same(write_voc, read_voc, make_record("x", "JPEGImages/a.png", size=(16, 12), task="det", boxes=boxes))

@some
@given(oriented)
def test_dota(boxes): same(write_dota, read_dota, make_record("x", dota_path("val", "a"), size=(16, 12), task="det", boxes=boxes, split="val"))

@some
@given(oriented)
def test_fair_csar(boxes): same(write_fair_csar, read_fair_csar, make_record("x", fair_csar_path("test", "a"), size=(16, 12), task="det", boxes=boxes, split="test"))

@some
@given(st.lists(texts, min_size=1, max_size=5).map(tuple), st.sampled_from(["train", "val", "test"]))
def test_captions(captions, split):
    same(write_karpathy, read_karpathy, make_record("x", "images/a.png", task="cap", captions=captions, split=split))
    same(write_sarlang, read_sarlang, make_record("x", "SARimages/a.png", task="cap", captions=captions, split=split))

@some
@given(labels.filter(lambda name: name.lower() not in ("train", "val", "test")))
def test_class_folders(label): same(write_class_folders, read_class_folders, make_record("x", f"{label}/a.png", labels=(label,)))

@some
@given(st.integers(0, 2**32 - 1))
def test_masks(seed):
    """Boxes of any mask, painted as rectangles, either come back or are refused; they never change in silence."""
    mask = np.random.default_rng(seed).integers(1, 8, (3, 4)).repeat(4, 0).repeat(4, 1)
    record = make_record("x", "Train/Urban/images_png/a.png", size=(16, 12), task="det", boxes=boxes_of_mask(mask, LOVEDA), split="train")
    try: same(write_masks, read_masks, record)
    except ValueError as error: assert "cannot hold" in str(error)

@some
@given(st.sampled_from([("2S1", "b01"), ("BMP2", "9563"), ("T72", "A04"), ("T72", "S7")]), st.sampled_from([15, 17, 30]),
       st.floats(0, 360), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_mstar(target, depression, azimuth, height, width, seed):
    label, serial = target
    path = mstar_path(label, serial, depression, "HB00001.000")
    record = make_record("x", path, pixels="phoenix", size=(width, height), labels=(label,),
                         sensor={"azimuth": azimuth, "depression": float(depression), "serial": serial, "polarisation": "HH", "resolution": 0.3047})
    magnitude = np.random.default_rng(seed).rayleigh(size=(height, width)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        write_mstar(Path(folder), [(record, magnitude)])
        assert list(read_mstar(Path(folder), "x")) == [record]
        assert np.array_equal(read_phoenix(Path(folder) / path)[1], magnitude)
    assert facts_of_path(path)[2] == depression

def test_nothing_is_written_for_a_refused_record(tmp_path):
    record = make_record("x", "JPEGImages/train/a.png", size=(16, 12), task="det", boxes=(Box("a", 0, 0, 1, 1),), split="val")
    with pytest.raises(ValueError, match="does not lie in"): write_coco(tmp_path / "new", [(record, PIXELS)])
    assert not (tmp_path / "new").exists()
