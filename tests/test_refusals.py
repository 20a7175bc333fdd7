"""Bad input: one clear sentence that names the value and the remedy, a non-zero exit, nothing half-written."""
import shutil

import pytest

CASES = [
    ("04_eval_retrieval", ["-p", "epoch", "3"], "no parameter 'epoch'", "did you mean 'epochs'"),
    ("02_train_stage1", ["-p", "backbone", "ViT-B-23"], "ViT-B-23", "did you mean"),
    ("01_build_dataset", [], "00_data", "makes it"),
    ("00_data", ["-p", "source", "archives", "-p", "data_dir", "nowhere"], "nowhere", "SARCLIP_DATA"),
    ("00_data", ["-p", "source", "archives", "-y", "datasets: [mstarr]"], "mstarr", "did you mean"),
]


@pytest.mark.parametrize("notebook, words, sentence, remedy", CASES)
def test_refused_by_name(project, tmp_path, notebook, words, sentence, remedy):
    runs = tmp_path / "runs"
    status, output = project.call("papermill", f"nbs/{notebook}.ipynb", str(tmp_path / "out.ipynb"), *words, "-p", "run_dir", str(runs))
    assert status != 0
    last = [line for line in output.splitlines() if "Error: " in line][-1]
    assert sentence in last and remedy in last, output[-1500:]
    assert not list(runs.rglob("metrics.json")) and not list(runs.rglob("*.part"))


def test_wrong_checksum_names_file_and_both_hashes(project, tmp_path):
    (tmp_path / "sar_acd.tar").write_bytes(b"not what the owner published")
    status, output = project.call("papermill", "nbs/00_data.ipynb", str(tmp_path / "out.ipynb"), "-p", "source", "archives", "-p", "data_dir", str(tmp_path),
                                  "-y", "datasets: [sar_acd]", "-p", "run_dir", str(tmp_path / "runs"))
    assert status != 0 and "sar_acd.tar" in output and "sha256" in output.lower() and "a5e7f8df" in output
    assert not list((tmp_path / "runs").rglob("metrics.json")) and not list((tmp_path / "runs").rglob("sar_acd"))


def test_unreadable_image_is_named_not_replaced(studied, tmp_path):
    shutil.copytree(studied.runs / "tiny" / "data", tmp_path / "tiny" / "data", ignore=shutil.ignore_patterns("cache"))
    victim = sorted((tmp_path / "tiny" / "data" / "datasets" / "rsicd").rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    status, output = studied.call("sarclip-run", "02_train_stage1", "--profile", "tiny", SARCLIP_RUNS=str(tmp_path))
    assert status != 0 and victim.name in output, output[-2000:]
    assert not list(tmp_path.rglob("model.safetensors"))
