# The notebook chain as a graph: one rule per numbered notebook, fanned out over backbones and inits.
#   snakemake --cores all --config profile=real backbones="RN50 ViT-B-32"
import os

from sarclip.settings import load_profile

PROFILE = config.get("profile", "mini")
profile = load_profile(PROFILE)
BACKBONES = str(config.get("backbones") or "").split() or profile["backbones"]
INITS = str(config.get("inits") or "").split() or profile["inits"]
MAIN = profile["main_init"] if profile["main_init"] in INITS else INITS[0]    # ablations and exploration: one init, as in the paper

RUN = os.environ.get("SARCLIP_RUNS", "runs")
BASE = f"{RUN}/{PROFILE}"
DATA = f"{BASE}/data"
STEP = f"{BASE}/{{backbone}}/{{init}}"
SHELL = f"sarclip-run {{params.notebook}} --profile {PROFILE} --run_dir {RUN}"
MODEL = SHELL + " --backbone {wildcards.backbone} --init {wildcards.init}"


def section(notebook):
    "The notebook's part of the profile: a change there, and only there, runs the notebook again."
    return dict(notebook=notebook, section=repr(profile.get(notebook, {})))


def every(notebook, inits):
    return expand(f"{STEP}/{notebook}/metrics.json", backbone=BACKBONES, init=inits)


rule all:
    input: f"{BASE}/report.html"


rule data:
    input: "nbs/00_data.ipynb", "data_manifest.yaml"
    output: f"{DATA}/00_data/metrics.json"
    params: **section("00_data")
    threads: workflow.cores
    shell: SHELL


rule build_dataset:
    input: "nbs/01_build_dataset.ipynb", rules.data.output
    output: f"{DATA}/01_build_dataset/metrics.json"
    params: **section("01_build_dataset")
    threads: workflow.cores
    shell: SHELL


rule train_stage1:
    input: "nbs/02_train_stage1.ipynb", rules.build_dataset.output
    output: f"{STEP}/02_train_stage1/metrics.json", f"{STEP}/02_train_stage1/model.safetensors"
    params: **section("02_train_stage1")
    threads: workflow.cores
    shell: MODEL


rule train_stage2:
    input: "nbs/03_train_stage2.ipynb", rules.train_stage1.output
    output: f"{STEP}/03_train_stage2/metrics.json", f"{STEP}/03_train_stage2/model.safetensors"
    params: **section("03_train_stage2")
    threads: workflow.cores
    shell: MODEL


rule eval_retrieval:
    input: "nbs/04_eval_retrieval.ipynb", rules.train_stage2.output
    output: f"{STEP}/04_eval_retrieval/metrics.json"
    params: **section("04_eval_retrieval")
    threads: workflow.cores
    shell: MODEL


rule eval_recognition:
    input: "nbs/05_eval_recognition.ipynb", rules.train_stage2.output
    output: f"{STEP}/05_eval_recognition/metrics.json"
    params: **section("05_eval_recognition")
    threads: workflow.cores
    shell: MODEL


rule ablations:
    input: "nbs/06_ablations.ipynb", rules.train_stage1.output
    output: f"{STEP}/06_ablations/metrics.json"
    params: **section("06_ablations")
    threads: workflow.cores
    shell: MODEL


rule explore:
    input: "nbs/07_explore.ipynb", rules.train_stage2.output
    output: f"{STEP}/07_explore/metrics.json"
    params: **section("07_explore")
    threads: workflow.cores
    shell: MODEL


rule report:
    input:
        "nbs/08_report.ipynb",
        every("04_eval_retrieval", INITS), every("05_eval_recognition", INITS),
        every("06_ablations", [MAIN]), every("07_explore", [MAIN]),
    output: f"{BASE}/report.html"
    params: **section("08_report")
    threads: workflow.cores
    shell: SHELL
