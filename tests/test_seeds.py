"""Several seeds and methods in one study: what the graph plans, where each training lies, and what all of them share."""
import json
import re

import pytest

from conftest import STUDY, Project

MODEL = "sarclip-mini/stage1"
DRY = ("snakemake", "--dry-run", "--cores", "2", "--nolock", "--config", "profile=tiny")


def plan(project: Project, *config: str) -> tuple[dict[str, int], str]:
    "How often each rule would run, and everything printed."
    status, output = project.call(*DRY, *config, SARCLIP_RUNS="nothing_yet")
    assert status == 0, output[-3000:]
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", output, re.M)}, output


def metrics(project: Project, step: str) -> dict:
    return json.loads((project.runs / "tiny" / step / "metrics.json").read_text())


def test_seeds_and_methods_fan_out_and_share_what_they_can(project):
    jobs, output = plan(project, "seeds=0 2", "methods=sarclip harma")
    assert jobs == {"all": 1, "data": 1, "build_dataset": 1, "train_stage1": 2, "train_stage2": 4, "eval_retrieval": 4, "eval_recognition": 4,
                    "ablations": 1, "explore": 1, "protocol": 2, "report": 1, "total": 22}
    made = set(re.findall(r"nothing_yet/tiny/sarclip-mini/(\S+)/metrics.json", output))
    for step, folders in {"02_train_stage1": {"stage1", "stage1-seed2"}, "07b_protocol": {"stage1", "stage1-seed2"}, "07_explore": {"stage1"},
                          "04_eval_retrieval": {"stage1", "stage1-seed2", "stage1-harma", "stage1-harma-seed2"}}.items():
        assert {name.split("/")[0] for name in made if name.endswith(step)} == folders, step


def test_a_profile_lists_seeds_and_the_command_line_overrides_them(fresh):
    path = fresh.folder / "profiles" / "tiny.yaml"
    path.write_text(path.read_text() + "seeds: [3, 4, 5]\nmethods: [harma]\n")
    jobs, output = plan(fresh)
    assert jobs["eval_retrieval"] == 3 and jobs["train_stage2"] == 6, "exploration and protocol need the paper's method too"
    assert "stage1-harma-seed5/04_eval_retrieval" in output and "stage1-seed3/07_explore" in output and "stage1-seed4/07_explore" not in output
    jobs, output = plan(fresh, "seeds=0", "methods=sarclip")
    assert jobs["eval_retrieval"] == jobs["protocol"] == 1 and "-seed" not in output and "-harma" not in output


@pytest.mark.parametrize("config, sentence", [("seeds=0 one", "'seed'"), ("seeds=-1", "'seed'"), ("methods=harm", "'method'"), ("seeds=$(touch X)", "'seed'")])
def test_a_seed_or_method_that_is_none_is_refused_by_name(project, config, sentence):
    status, output = project.call(*DRY, config)
    assert status != 0 and f"parameter {sentence} of 03_train_stage2" in output, output[-2000:]
    assert not (project.folder / "X").exists()


def test_a_step_by_hand_lands_beside_the_first_training_and_reads_its_own_stage_1(studied):
    for notebook in ("02_train_stage1", "03_train_stage2"):
        status, output = studied.call("sarclip-run", notebook, "--profile", "tiny", "--seed", "1")
        assert status == 0, output[-3000:]
    read = json.loads((studied.runs / "tiny" / f"{MODEL}-seed1/03_train_stage2/provenance.json").read_text())
    assert read["seed"] == 1 and f"runs/tiny/{MODEL}-seed1/02_train_stage1/model.safetensors" in read["inputs_sha256"]
    for notebook, stage in (("02_train_stage1", 1), ("03_train_stage2", 2)):
        losses = [metrics(studied, f"{MODEL}{seed}/{notebook}")[f"train/stage{stage}/first_loss"] for seed in ("", "-seed1")]
        assert losses[0] != losses[1], f"the seed changed nothing in stage {stage}"


CHOSEN = """
from sarclip.core.settings import check
from sarclip.data.manifest import load_manifest
from sarclip.study.inputs import recognition_tasks, test_set
from sarclip.study.run import Step

for seed in (0, 1):
    run = Step(check("05_eval_recognition", {"profile": "tiny", "seed": seed, "max_steps": 1, "batch_size": 6}), "05_eval_recognition")
    soc = recognition_tasks(run, load_manifest(), 16, "mstar_soc")["mstar_soc"]
    print("chosen", *(part.image_id.tolist() for part in (test_set(run, 16).pairs, soc.train, soc.test)))
try: Step(check("03_train_stage2", {"profile": "tiny", "seed": 7}), "03_train_stage2").need("02_train_stage1", "model.safetensors")
except FileNotFoundError as error: print("refused", error)
"""


def test_every_seed_is_judged_on_the_same_images_and_starts_from_its_own_stage_1(studied):
    "The same images also where a limit leaves only some of them."
    status, output = studied.call("python", "-c", CHOSEN)
    chosen = [line for line in output.splitlines() if line.startswith("chosen")]
    assert status == 0 and len(chosen) == 2 and chosen[0] == chosen[1], output[-2000:]
    refused = output.splitlines()[-1]
    assert f"refused runs/tiny/{MODEL}-seed7/02_train_stage1/model.safetensors is missing: 02_train_stage1.ipynb makes it" in refused and "-p seed 7" in refused, output[-2000:]


@pytest.mark.slow
def test_a_study_of_two_seeds_and_two_methods(fresh):
    status, output = fresh.call(*STUDY, "seeds=0 1", "methods=sarclip harma")
    assert status == 0, output[-3000:]
    key = "retrieval/sarclip_1m/mean_recall"
    for method in ("", "-harma"):
        first, second = (metrics(fresh, f"{MODEL}{method}{seed}/04_eval_retrieval") for seed in ("", "-seed1"))
        assert first[f"{key}/ceiling"] == second[f"{key}/ceiling"], "another test set"
        assert first != second
    page = (fresh.runs / "tiny" / "report.html").read_text()
    assert "seeds 0, 1" in page and "over 2 trainings" in page
    rows = re.findall(r'<tr class="ours">\s*<th scope="row">HarMA, this run <small>([^<]*)</small></th>(.*?)</tr>', page, re.S)
    assert rows and all(detail.endswith("2 trainings") and "±" in cells for detail, cells in rows), rows
    before = (fresh.runs / "tiny" / "report.html").stat().st_mtime_ns
    status, output = fresh.call(*STUDY, "seeds=0 1", "methods=sarclip harma")
    assert status == 0 and "▶" not in output and (fresh.runs / "tiny" / "report.html").stat().st_mtime_ns == before
