# The notebook chain as a graph: one rule per numbered notebook, fanned out over backbones and inits.
#   snakemake --cores all --config profile=real backbones="RN50 ViT-B-32"
import os
from glob import glob

from sarclip.core.settings import ADOPTED, check, load_profile, released_weights

PROFILE = config.get("profile", "mini")
profile = load_profile(PROFILE)
BACKBONES = str(config.get("backbones") or "").split() or profile["backbones"]
INITS = str(config.get("inits") or "").split() or profile["inits"]
MODELS = [(b, i) for b in BACKBONES for i in INITS if i not in ADOPTED or released_weights(profile, i, b)]    # released weights exist for some backbones only
MISSING = [f"{i} for {b}: {w}" for b, i in MODELS if (w := released_weights(profile, i, b)) and not w.is_file()]
if MISSING: raise WorkflowError(f"profiles/{PROFILE}.yaml names released weights that are not there: {'; '.join(MISSING)}. Fetch them (nbs/02_train_stage1.ipynb says where), or leave their inits out: --config inits=stage1")
MAIN = profile["main_init"] if profile["main_init"] in INITS else INITS[0]    # ablations and exploration: one init, as in the paper

MANIFESTS = [str(path) for path in ("data_manifest.yaml", "data_manifest.local.yaml") if os.path.exists(path)]    # the second: datasets of your own
GPUS = os.environ["CUDA_VISIBLE_DEVICES"].split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else [str(i) for i in range(len(glob("/dev/nvidia[0-9]*")))]
VARIANTS = []    # of the ablations, to be trained side by side where there are several devices (on a cluster: --config devices=8); elsewhere notebook 06 trains one after the other
if int(config.get("devices") or len(GPUS)) > 1:
    from sarclip.training.recipe import ablation_variants, configure    # takes seconds
    ablations = check("06_ablations", {"profile": PROFILE})
    VARIANTS = [name for name, variant in ablation_variants(configure(ablations), ablations.layers).items() if variant]

THREADS = int(config.get("threads") or os.cpu_count())    # a training takes the machine; Snakemake lowers this to its --cores
RUN = os.environ.get("SARCLIP_RUNS", "runs")
BASE = f"{RUN}/{PROFILE}"
DATA = f"{BASE}/data"
STEP = f"{BASE}/{{backbone}}/{{init}}"
SHELL = f"sarclip-run {{params.notebook}} --profile {PROFILE} --run_dir {RUN}"
MODEL = SHELL + " --backbone {wildcards.backbone} --init {wildcards.init}"
LAUNCH = ("if [ {resources.gpu} -gt 1 ]; then torchrun --standalone --nproc_per_node {resources.gpu} -m sarclip.study.launch --stage {params.stage}"
          f" --profile {PROFILE} --run_dir {RUN} --backbone {{wildcards.backbone}} --init {{wildcards.init}}; fi && ")    # on several GPUs; the notebook then finds it done
VARIANT = ("{params.device}torchrun --standalone --nproc_per_node 1 -m sarclip.study.launch --variant {wildcards.variant}"
           f" --profile {PROFILE} --run_dir {RUN} --backbone {{wildcards.backbone}} --init {{wildcards.init}}")


def own_gpu(wildcards): return f"CUDA_VISIBLE_DEVICES={GPUS[VARIANTS.index(wildcards.variant) % len(GPUS)]} " if GPUS else ""


def section(notebook):
    "The notebook's part of the profile: a change there, and only there, runs the notebook again."
    return dict(notebook=notebook, section=repr(profile.get(notebook, {})))


def every(notebook, inits):
    return [f"{BASE}/{b}/{i}/{notebook}/metrics.json" for b, i in MODELS if i in inits]


def archives():
    "What lies in the data folder: another archive there, and the data is read anew."
    if (profile.get("00_data") or {}).get("source") != "archives": return ""
    folder = check("00_data", {"profile": PROFILE}).data_dir
    return repr(sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir())) if folder.is_dir() else ""


rule all:
    input: f"{BASE}/report.html"


rule data:
    input: "nbs/00_data.ipynb", MANIFESTS
    output: f"{DATA}/00_data/metrics.json"
    params: **section("00_data"), archives=archives()
    threads: THREADS
    shell: SHELL


rule build_dataset:
    input: "nbs/01_build_dataset.ipynb", rules.data.output
    output: f"{DATA}/01_build_dataset/metrics.json"
    params: **section("01_build_dataset")
    threads: THREADS
    shell: SHELL


rule train_stage1:
    input: "nbs/02_train_stage1.ipynb", rules.build_dataset.output
    output: f"{STEP}/02_train_stage1/metrics.json", f"{STEP}/02_train_stage1/model.safetensors"
    params: stage=1, **section("02_train_stage1")
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: LAUNCH + MODEL


rule train_stage2:
    input: "nbs/03_train_stage2.ipynb", rules.train_stage1.output
    output: f"{STEP}/03_train_stage2/metrics.json", f"{STEP}/03_train_stage2/model.safetensors"
    params: stage=2, **section("03_train_stage2")
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: LAUNCH + MODEL


rule eval_retrieval:
    input: "nbs/04_eval_retrieval.ipynb", rules.train_stage2.output
    output: f"{STEP}/04_eval_retrieval/metrics.json"
    params: **section("04_eval_retrieval")
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: MODEL


rule eval_recognition:
    input: "nbs/05_eval_recognition.ipynb", rules.train_stage2.output
    output: f"{STEP}/05_eval_recognition/metrics.json"
    params: **section("05_eval_recognition")
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: MODEL


rule ablation_variant:
    input: "nbs/06_ablations.ipynb", rules.train_stage1.output
    output: temp(f"{STEP}/06_ablations/training/{{variant}}/model.safetensors")
    params: device=own_gpu, **section("06_ablations")
    threads: max(1, THREADS // max(1, len(GPUS)))    # one a GPU, side by side
    resources: gpu=1
    shell: VARIANT


rule ablations:
    input: "nbs/06_ablations.ipynb", rules.train_stage1.output, [f"{STEP}/06_ablations/training/{v}/model.safetensors" for v in VARIANTS]
    output: f"{STEP}/06_ablations/metrics.json"
    params: **section("06_ablations")
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: MODEL


rule explore:
    input: "nbs/07_explore.ipynb", rules.train_stage2.output
    output: f"{STEP}/07_explore/metrics.json"
    params: **section("07_explore")
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: MODEL


rule protocol:
    input: "nbs/07b_protocol.ipynb", rules.train_stage1.output, rules.train_stage2.output
    output: f"{STEP}/07b_protocol/metrics.json"
    params: **section("07b_protocol")
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: MODEL


rule report:
    input:
        "nbs/08_report.ipynb",
        every("04_eval_retrieval", INITS), every("05_eval_recognition", INITS),
        every("06_ablations", [MAIN]), every("07_explore", [MAIN]), every("07b_protocol", [MAIN]),
    output: f"{BASE}/report.html"
    params: **section("08_report")
    threads: THREADS
    shell: SHELL
