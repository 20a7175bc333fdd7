"""What notebook 01 writes for other programs, opened by those programs."""
import json
import os
from pathlib import Path

import pandas as pd
import pytest

import sarclip    # before open_clip, which imports torchvision
from sarclip.data.manifest import load_manifest
from sarclip.captions.outputs import write_shards
from sarclip.captions.pairs import read_table, sar_names

BUILT = "tiny/data/01_build_dataset"


@pytest.fixture
def built(studied) -> Path:
    return studied.runs / BUILT


def test_open_clip_reads_the_csv_from_any_folder(built, tmp_path, monkeypatch):
    data = pytest.importorskip("open_clip_train.data", reason="open_clip's trainer needs webdataset")
    monkeypatch.chdir(tmp_path)
    rows = data.CsvDataset(str(built / "train.csv"), lambda image: image.size, "imgpath", "caption", ",", tokenizer=lambda texts: texts)
    assert len(rows) > 100
    for i in (0, len(rows) // 2, len(rows) - 1):
        size, caption = rows[i]
        assert min(size) > 10 and caption in set(read_table(built / "pairs.parquet").caption)


def test_every_image_is_in_the_csv_or_has_a_reason(built):
    pairs = read_table(built / "pairs.parquet")
    shown, left_out = pd.read_csv(built / "train.csv"), pd.read_csv(built / "train_left_out.csv")
    assert shown.imgpath.str.contains("/opensarship/").any(), "ship chips are 8-bit TIFFs, which Pillow opens"
    train = pairs[(pairs.split == "train") & pairs.dataset.isin(sar_names(load_manifest()))]
    assert shown.imgpath.nunique() + len(left_out) == train.image_id.nunique() and (left_out.reason != "").all()


def test_webdataset_reads_the_shards(built, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    records, pairs = read_table(built / "records.parquet"), read_table(built / "pairs.parquet")
    val = pairs[(pairs.split == "val") & pairs.dataset.isin(["mstar", "sardet_100k"])]
    shards = write_shards(val, records, built.parent / "datasets", tmp_path, "val", seed=0, samples=20)
    assert len(shards) == -(-val.image_id.nunique() // 20)
    samples = list(webdataset.WebDataset([str(s) for s in shards], shardshuffle=False).decode("pil").to_tuple("png", "txt", "json"))
    assert {about["image_id"] for _, _, about in samples} == set(val.image_id) and len(samples) == val.image_id.nunique()
    for image, text, about in samples:
        own = val[val.image_id == about["image_id"]]
        assert about["captions"] == own.caption.tolist() and about["facts"] == own.facts.tolist() and text == about["captions"][0]
        assert image.size == (64, 64) or about["dataset"] != "mstar"


@pytest.mark.slow    # of the tables' parts, notebooks captions/04_build and data/leakage say so in every run of the tests
def test_any_number_of_workers_gives_the_same_bytes(studied, built):
    names = ("records.parquet", "pairs.parquet", "test_pairs.parquet", "train.csv")
    before = {name: (built / name).read_bytes() for name in names}
    status, output = studied.call("papermill", "nbs/01_build_dataset.ipynb", os.devnull, "-p", "profile", "tiny", "-p", "workers", "2")
    assert status == 0, output[-3000:]
    assert {name: (built / name).read_bytes() for name in names} == before


def test_card_names_every_source_with_its_terms(built):
    card, manifest = (built / "README.md").read_text(), load_manifest()
    for name in set(pd.read_parquet(built / "pairs.parquet").dataset): assert manifest.datasets[name].licence in card, name
    assert json.loads((built / "problems.json").read_text())["problems"] == []
