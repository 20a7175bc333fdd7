"""One's own SAR images alone, no optical ones and none of the manifest's: the tutorial's two datasets go through the study."""
import json
from pathlib import Path

import nbformat
import numpy as np
import pytest

from conftest import ROOT, TINY, Project

from sarclip.core.records import Box
from sarclip.data.formats.class_folders import write_class_folders
from sarclip.data.formats.common import make_record
from sarclip.data.formats.voc import write_voc

MODEL = "own/sarclip-mini/stage1"


def write_own_data(folder: Path) -> None:
    "As somebody would send it: 24 chips of two classes in folders, 6 scenes with boxes."
    rng = np.random.default_rng(0)
    chips = [make_record("harbour_chips", f"{label}/{n:02}.png", labels=(label,)) for label in ("TUG", "RORO") for n in range(12)]
    write_class_folders(folder / "harbour_chips", zip(chips, rng.integers(0, 120, (24, 48, 48), dtype=np.uint8)))
    boxes = [tuple(Box(word, 10. + 40 * i, 12. + 25 * i, 34. + 40 * i, 30. + 25 * i) for i, word in enumerate(words.split()))
             for words in ("mast", "mast mast", "mast dish", "dish", "dish mast mast", "dish dish")]
    scenes = [make_record("radio_sites", f"JPEGImages/{n:06}.png", size=(128, 96), task="det", boxes=found) for n, found in enumerate(boxes)]
    write_voc(folder / "radio_sites", zip(scenes, rng.integers(0, 256, (6, 96, 128), dtype=np.uint8)))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Project:
    "A project with a local manifest, a profile for archives, and nothing in the data folder but one's own images."
    project = Project(tmp_path_factory.mktemp("own") / "sarclip")
    entries = (ROOT / "nbs/tutorial_own_data.yaml").read_text()
    assert entries.count("fraction: 0.25") == 1    # half of the chips held out: a map takes five images at least
    (project.folder / "data_manifest.local.yaml").write_text(entries.replace("fraction: 0.25", "fraction: 0.5"))
    profile = TINY.replace("source: generated, scale: 0.06", "source: archives").replace("batch_size: 16", "batch_size: 8")
    (project.folder / "profiles/own.yaml").write_text(profile)
    write_own_data(project.folder / "mine")
    return project


def run(project: Project, notebook: str) -> dict[str, float]:
    "Its metrics, after it has run."
    status, output = project.call("sarclip-run", notebook, "--profile", "own", SARCLIP_DATA=str(project.folder / "mine"))
    assert status == 0, output[-3000:]
    return json.loads(next((project.runs / "own").rglob(f"{notebook}/metrics.json")).read_text())


def shown(project: Project, notebook: str) -> str:
    "What the executed notebook says in its texts."
    cells = nbformat.read(next((project.runs / "own").rglob(f"{notebook}.ipynb")), 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/markdown") or "" for output in outputs)


@pytest.mark.slow
def test_own_sar_images_alone_make_a_model_and_a_report(own):
    found = run(own, "00_data")
    assert found == {"data/harbour_chips/images": 24, "data/radio_sites/images": 6, "data/problems": 0}
    built = run(own, "01_build_dataset")
    held_out = built["dataset/harbour_chips/val_images"]
    assert 0 < held_out < 24 and built["dataset/harbour_chips/train_images"] + held_out == 24 and built["dataset/radio_sites/train_images"] == 6
    assert run(own, "02_train_stage1") == {"train/stage1/steps": 0}
    assert "Nothing was trained, as no optical training images are here: stage 2 starts from the seed's random weights" in shown(own, "02_train_stage1")
    assert run(own, "03_train_stage2")["train/stage2/steps"] == 2
    first, second = ((own.runs / MODEL / notebook / "model.safetensors").read_bytes() for notebook in ("02_train_stage1", "03_train_stage2"))
    assert first != second
    recall = run(own, "04_eval_retrieval")
    assert 0 <= recall["retrieval/sarclip_1m/mean_recall"] <= recall["retrieval/sarclip_1m/mean_recall/ceiling"] <= 100
    for notebook in ("05_eval_recognition", "06_ablations", "07_explore", "07b_protocol"): run(own, notebook)
    assert "not checked: no task trains on two classes" in shown(own, "05_eval_recognition")
    status, output = own.call("sarclip-run", "08_report", "--profile", "own")    # a page, no metrics
    assert status == 0, output[-3000:]
    page = (own.runs / "own/report.html").read_text()
    assert "harbour" in page and "not run" in page
