"""What is committed of a run: its numbers, what was asked for, how they came to be, and nothing of the machine."""
import json
import re
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, Project

TEXTS = {".json", ".jsonl", ".yaml", ".csv", ".md"}
PLACE = re.compile(r"(?<![\w.])(/(home|root|tmp|work|mnt|data|Users|var|opt|scratch)/|[A-Za-z]:\\)")


def strangers(results: Path) -> list[str]:
    "Files and texts that have no place among kept results."
    found = []
    for path in (path for path in results.rglob("*") if path.is_file()):
        if path.suffix not in TEXTS: found.append(f"{path}: only {sorted(TEXTS)} are kept"); continue
        text = path.read_text(encoding="utf-8")
        if place := PLACE.search(text): found.append(f"{path}: {text[place.start():][:60]!r} is a place of one machine")
    return found


def test_committed_results_hold_no_picture_and_no_path_of_a_machine():
    assert strangers(ROOT / "results") == []


@pytest.mark.parametrize("name, text", [("recall.png", "x"), ("metrics.json", '{"a": "/home/somebody/runs"}'), ("params.yaml", "weights: C:\\w.pt")])
def test_what_does_not_belong_there_is_found(tmp_path, name, text):
    folder = tmp_path / "results/mini/sarclip-mini/stage1/04_eval_retrieval"
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text('{"git_commit": "0", "inputs_sha256": {"runs/mini/a.npy": "0f"}}')
    assert strangers(tmp_path / "results") == []
    (folder / name).write_text(text)
    assert len(strangers(tmp_path / "results")) == 1


def test_a_study_is_kept_without_its_pictures(studied: Project):
    status, output = studied.call("sarclip", "keep", "tiny")
    assert status == 0 and "README.md" in output, output
    results, run = studied.folder / "results", studied.runs / "tiny"
    assert strangers(results) == []
    steps = {path.parent.relative_to(run) for path in run.rglob("metrics.json") if path.parent.name != "unfinished"}
    assert {path.parent.relative_to(results / "tiny") for path in results.rglob("metrics.json")} == steps
    for step in steps:
        assert json.loads((results / "tiny" / step / "metrics.json").read_text()) == json.loads((run / step / "metrics.json").read_text())
        assert not {"run_dir", "data_dir"} & yaml.safe_load((results / "tiny" / step / "params.yaml").read_text()).keys()
        assert step.name in (results / "README.md").read_text(), "no command for this step"
    assert str(studied.folder) not in "".join(path.read_text() for path in results.rglob("*") if path.is_file())
