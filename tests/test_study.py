"""The study as a stranger runs it: whole, again, interrupted, and broken."""
import json
import os
import re
import shutil
import signal
import time

import nbformat
import pytest

from conftest import ROOT, STUDY

STEPS = ["data/00_data", "data/01_build_dataset", *(f"sarclip-mini/stage1/{n}" for n in (
    "02_train_stage1", "03_train_stage2", "04_eval_retrieval", "05_eval_recognition", "06_ablations", "07_explore", "07b_protocol"))]


def metrics(project, step: str) -> dict:
    return json.loads((project.runs / "tiny" / step / "metrics.json").read_text())


def test_every_step_leaves_its_artefacts(studied):
    for step in STEPS:
        folder = studied.runs / "tiny" / step
        for name in ("params.yaml", "metrics.json", "provenance.json", f"{folder.name}.ipynb"): assert (folder / name).is_file(), f"{step}/{name}"
        assert json.loads((folder / "provenance.json").read_text())["packages"]["torch"]
    assert not list((studied.runs / "tiny").rglob("*.part"))


def test_metrics_keys_follow_the_contract(studied):
    retrieval, recognition = metrics(studied, STEPS[4]), metrics(studied, STEPS[5])
    for key in ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "mean_recall"): assert f"retrieval/sarclip_1m/{key}" in retrieval
    for key in ("retrieval/sarclip_1m/mean_recall/ceiling", "retrieval_facts/sarclip_1m/mean_recall", "retrieval_facts/sarclip_1m/mean_recall/chance",
                "untrained/retrieval/sarclip_1m/mean_recall"): assert key in retrieval
    for key in ("linear_probe/mstar_soc/accuracy", "linear_probe/mstar_soc/accuracy/ci95", "untrained/linear_probe/mstar_soc/accuracy",
                "text_classification/mstar_soc/accuracy", "raw_pixels/mstar_soc/accuracy"): assert key in recognition
    for step in STEPS:
        for key, value in metrics(studied, step).items():
            assert re.fullmatch(r"[\w.+-]+(/[\w.+-]+)+", key), key
            assert isinstance(value, (int, float, list)) or key.endswith("/note"), key


def test_report_is_one_page_that_invents_nothing(studied):
    page = (studied.runs / "tiny" / "report.html").read_text()
    assert not re.search(r'(src|href)="https?://[^"]+\.(js|css|png)', page), "the report loads something from elsewhere"
    assert "not run" in page
    value = metrics(studied, STEPS[4])["retrieval/sarclip_1m/mean_recall"]
    assert f"{value:.2f}" in page and "15.25" in page


def test_second_study_does_nothing(studied):
    report = studied.runs / "tiny" / "report.html"
    before = report.stat().st_mtime_ns
    status, output = studied.study()
    assert status == 0 and report.stat().st_mtime_ns == before, output
    assert not re.search("▶", output), output


def test_snakemake_fans_out_over_backbones_and_inits(studied):
    status, output = studied.call("snakemake", "--dry-run", "--cores", "2", "--nolock", "--config", "profile=tiny", "backbones=RN50 ViT-B-32", "inits=stage1 scratch")
    assert status == 0, output
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))
    assert jobs == {"all": "1", "train_stage1": "4", "train_stage2": "4", "eval_retrieval": "4", "eval_recognition": "4",
                    "ablations": "2", "explore": "2", "protocol": "2", "report": "1", "total": "24"}


def test_each_variant_of_the_ablations_is_a_job_where_there_are_two_devices(fresh):
    status, output = fresh.call("snakemake", "--dry-run", "--cores", "2", "--nolock", "--config", "profile=tiny", "devices=2")
    assert status == 0, output
    assert dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))["ablation_variant"] == "4"    # text, image, both, last_1


@pytest.mark.slow
def test_ablations_train_side_by_side_where_there_are_devices(studied):
    "With two devices each variant is a job of its own; the notebook finds all of them trained and measures what it would have measured alone."
    step, again = "sarclip-mini/stage1/06_ablations", studied.folder / "runs_spread"
    shutil.copytree(studied.runs, again)
    shutil.rmtree(again / "tiny" / step)
    status, output = studied.call("snakemake", "--cores", "2", "--nolock", "--config", "profile=tiny", "devices=2", "--", f"{again}/tiny/{step}/metrics.json", SARCLIP_RUNS=str(again))
    assert status == 0, output[-3000:]
    assert output.count("now run 06_ablations.ipynb") == 4    # text, image, both, last_1
    assert json.loads((again / "tiny" / step / "metrics.json").read_text()) == metrics(studied, step)
    assert not (again / "tiny" / step / "training").exists()


@pytest.mark.slow    # papermill has run them all as the study
def test_numbered_notebooks_run_as_they_stand(fresh):
    "Without papermill's parameters, in name order: each reads what those before it made."
    status, output = fresh.call("nbdev_test", "--path", "nbs", "--skip_folder_re", "^(api|[_.])", "--n_workers", "0", SARCLIP_PROFILES=str(ROOT / "tests/profiles"))
    assert status == 0, output[-3000:]


def test_examples_run_on_the_study(studied):
    "They read a run called mini; the tutorial brings data of its own."
    runs = studied.folder / "runs_examples"
    runs.mkdir()
    (runs / "mini").symlink_to(studied.runs / "tiny")
    status, output = studied.call("nbdev_test", "--path", "nbs", "--skip_folder_re", "^(api|[_.])", "--skip_file_re", r"^(\d|[_.])", "--n_workers", "0", "--timing", SARCLIP_RUNS=str(runs))
    assert status == 0, output[-3000:]
    assert set(re.findall(r"(\w+)\.ipynb: ", output)) == {"adapt_to_own_classes", "classify_own_chips", "search_own_folder", "tutorial_own_data"}


def test_harma_is_a_method_with_a_folder_of_its_own(studied):
    for notebook in ("03_train_stage2", "04_eval_retrieval"):
        status, output = studied.call("sarclip-run", notebook, "--profile", "tiny", "--method", "harma")
        assert status == 0, output[-3000:]
    found = metrics(studied, "sarclip-mini/stage1-harma/04_eval_retrieval")
    assert 0 <= found["retrieval/sarclip_1m/mean_recall"] <= 100 and found != metrics(studied, STEPS[4])


def test_seed_repeats_the_study(studied):
    weights = studied.runs / "tiny" / "sarclip-mini/stage1/03_train_stage2" / "model.safetensors"
    before = weights.read_bytes()
    # by hand, where nothing but the profile says how many threads: another number of them rounds sums otherwise
    status, output = studied.call("env", "-u", "OMP_NUM_THREADS", "sarclip-run", "03_train_stage2", "--profile", "tiny")
    assert status == 0, output[-3000:]
    assert weights.read_bytes() == before, "the same seed gave other weights"


def test_rerun_that_diverges_leaves_the_good_run_as_it_was(studied):
    "A learning rate of 1e30 after a good training: one sentence, and every byte of the model, the metrics, best/ and the executed notebook stays."
    runs = studied.folder / "runs_diverged"
    shutil.copytree(studied.runs, runs)
    step = runs / "tiny" / STEPS[3]
    def files() -> dict[str, bytes]:
        return {name: p.read_bytes() for p in sorted(step.rglob("*")) if p.is_file() and not (name := p.relative_to(step).as_posix()).startswith(("unfinished/", "."))}
    (step / "best").mkdir(exist_ok=True)    # so small a study keeps no images to watch, and so no best model
    (step / "best/model.safetensors").write_bytes(b"the best so far")
    good = files()
    assert {"model.safetensors", "metrics.json", "03_train_stage2.ipynb", "best/model.safetensors"} <= good.keys()
    status, output = studied.call("sarclip-run", "03_train_stage2", "--profile", "tiny", "--lr", "1e30", SARCLIP_RUNS=str(runs))
    said = [line for line in output.splitlines() if line.startswith("✗")]
    assert status == 1 and len(said) == 1, output
    assert re.match(r"✗ 03_train_stage2, cell \d+: FloatingPointError: .* became \w+ at step \d of 2 .*: lower lr or check the data; ", said[0]) and "Traceback" not in output, output
    assert files() == good
    # what comes next still reads the good model; run alone, from the notebooks' own folder
    status, output = studied.call("papermill", "04_eval_retrieval.ipynb", str(studied.folder / "out.ipynb"), "-p", "profile", "tiny", "-p", "max_steps", "1",
                                  "-p", "batch_size", "8", cwd="nbs", SARCLIP_RUNS=str(runs))
    assert status == 0, output[-3000:]


def test_stage_that_torchrun_trained_is_found_done_by_its_notebook(studied):
    "Two processes train stage 2 under the step's lock; notebook 03 finishes their run and trains nothing."
    runs = studied.folder / "runs_torchrun"
    shutil.copytree(studied.runs, runs)
    step, options = runs / "tiny" / STEPS[3], ("--profile", "tiny", "--frozen_bn", "true")    # BatchNorm is not shared on CPUs
    shutil.rmtree(step)
    train = ("torchrun", "--standalone", "--nproc_per_node", "2", "-m", "sarclip.study.launch", "--stage", "2", *options)
    environment = {"SARCLIP_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    status, output = studied.call(*train, **environment)
    assert status == 0 and "2 steps in 2 processes" in output and "now run 03_train_stage2.ipynb" in output, output[-3000:]
    assert not (step / "metrics.json").exists()    # a training is no finished step
    trained = (step / "unfinished/model.safetensors").read_bytes()
    status, output = studied.call("sarclip-run", "03_train_stage2", *options[:2], "--frozen_bn", **environment)
    assert status == 0, output[-3000:]
    executed = nbformat.read(step / "03_train_stage2.ipynb", 4)
    shown = "".join(o.get("text", "") for cell in executed.cells for o in cell.get("outputs", []))
    assert "going on after step 2 of 2" in shown and (step / "model.safetensors").read_bytes() == trained
    assert json.loads((step / "metrics.json").read_text())["train/stage2/steps"] == 2
    assert not (step / "unfinished").exists() and not (step / "states").exists()


@pytest.mark.slow    # as test_kills.py, which kills at any moment
def test_killed_study_resumes_without_redoing_finished_steps(fresh):
    process = fresh.start(*STUDY)
    done, following = (fresh.runs / "tiny" / step for step in (f"{STEPS[1]}/metrics.json", STEPS[2]))
    deadline = time.monotonic() + 300
    while not following.exists():    # Snakemake has seen the step before it end
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stamp = done.stat().st_mtime_ns
    status, output = fresh.call(*STUDY[:-2], "--until", "train_stage1", *STUDY[-2:])
    assert status == 0, output[-3000:]
    assert done.stat().st_mtime_ns == stamp and "▶ 00_data" not in output and "▶ 02_train_stage1" in output
