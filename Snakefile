# The notebook chain as a graph: one rule per numbered notebook, fanned out over backbones, inits, methods and seeds.
#   snakemake --cores all --config profile=real backbones="RN50 ViT-B-32" seeds="0 1 2"
import os
from glob import glob
from itertools import product
from shlex import quote

from sarclip.core.parameters import ADOPTED, INITS as ALL_INITS, METHODS as ALL_METHODS
from sarclip.core.settings import check, load_profile, released_weights


def or_stop(call, *arguments):
    "What the call returns; a mistake in a profile or parameter is one sentence."
    try:
        return call(*arguments)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


PROFILE = str(config.get("profile", "mini"))
profile = or_stop(load_profile, PROFILE)


def chosen(name):
    "The words of `--config name=\"…\"`, else what the profile says."
    given = config.get(name)
    return list(dict.fromkeys(str("" if given is None else given).split() or profile[name]))


BACKBONES, INITS, METHODS = chosen("backbones"), chosen("inits"), chosen("methods")
SEEDS = list(dict.fromkeys(int(s) if str(s).isdecimal() else s for s in chosen("seeds")))
for values in product(BACKBONES, INITS, METHODS, SEEDS):
    or_stop(check, "03_train_stage2", {"profile": PROFILE} | dict(zip(("backbone", "init", "method", "seed"), values)))
# released weights exist for some backbones only
STARTS = [(b, i) for b in BACKBONES for i in INITS if i not in ADOPTED or released_weights(profile, i, b)]
MISSING = [f"{i} for {b}: {w}" for b, i in STARTS if (w := released_weights(profile, i, b)) and not w.is_file()]
if MISSING:
    raise WorkflowError(
        f"profile {PROFILE} names released weights that are not there: {'; '.join(MISSING)}. Fetch them "
        "(nbs/02_train_stage1.ipynb says where), or leave their inits out: --config inits=stage1"
    )
# ablations and exploration: one init, as in the paper, and the first seed
MAIN = profile["main_init"] if profile["main_init"] in INITS else INITS[0]
ONCE = dict(inits=[MAIN], methods=ALL_METHODS[:1], seeds=SEEDS[:1])

# the second: datasets of your own
MANIFESTS = [str(path) for path in ("data_manifest.yaml", "data_manifest.local.yaml") if os.path.exists(path)]
VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")
GPUS = VISIBLE.split(",") if VISIBLE else [str(i) for i in range(len(glob("/dev/nvidia[0-9]*")))]
# Variants of the ablations, to be trained side by side where there are several devices (on a cluster: --config
# devices=8); elsewhere notebook 06 trains one after the other.
VARIANTS = []
if int(config.get("devices") or len(GPUS)) > 1:
    from sarclip.training.recipe import ablation_variants, configure    # takes seconds
    ablations = or_stop(check, "06_ablations", {"profile": PROFILE})
    variants = ablation_variants(configure(ablations), ablations.layers)
    VARIANTS = [name for name, variant in variants.items() if variant]

# a training takes the machine, unless the profile trains several seeds side by side; Snakemake lowers this to its --cores
THREADS = int(config.get("threads") or profile.get("threads") or os.cpu_count())
RUN = os.environ.get("SARCLIP_RUNS") or "runs"
if "{" in RUN or "}" in RUN: raise WorkflowError(f"SARCLIP_RUNS may hold no braces, got {RUN!r}")
BASE = f"{RUN}/{PROFILE}"
DATA = f"{BASE}/data"
STEP = f"{BASE}/{{backbone}}/{{init}}{{seed}}"              # step_dir of sarclip.study.run says the same
STAGE2 = f"{BASE}/{{backbone}}/{{init}}{{method}}{{seed}}"
# exploration and protocol look at the paper's method, whose folder does not name it
TRAINED = [f"{STEP}/03_train_stage2/{name}" for name in ("metrics.json", "model.safetensors")]

# Commands. Whatever comes from a profile or the environment is quoted (:q), so that a shell reads it as one word.
OF_RUN = " --profile {PROFILE:q} --run_dir {RUN:q}"
OF_MODEL = OF_RUN + " --backbone {wildcards.backbone:q} --init {wildcards.init:q} {params.training}"
SHELL = "sarclip-run {params.notebook:q}" + OF_RUN
# on several GPUs a stage is trained by torchrun; the notebook then finds it done
MODEL = ("if [ {params.stage} -gt 0 ] && [ {resources.gpu} -gt 1 ]; then torchrun --standalone"
         " --nproc_per_node {resources.gpu} -m sarclip.study.launch --stage {params.stage}" + OF_MODEL + "; fi && "
         "sarclip-run {params.notebook:q}" + OF_MODEL)
VARIANT = ("{params.device}torchrun --standalone --nproc_per_node 1 -m sarclip.study.launch"
           " --variant {wildcards.variant:q}" + OF_MODEL)


wildcard_constraints:
    backbone=r"[\w.+-]+",
    init="|".join(ALL_INITS),
    method="|".join(["", *(f"-{method}" for method in ALL_METHODS[1:])]),    # the paper's is not named
    seed=r"|-seed[1-9]\d*",                                                  # nor is seed 0
    variant=r"\w+"


def own_gpu(wildcards):
    if not GPUS: return ""
    return f"CUDA_VISIBLE_DEVICES={quote(GPUS[VARIANTS.index(wildcards.variant) % len(GPUS)])} "


def training(wildcards):
    "Which training of a model: its seed and, from stage 2 on, its method."
    method = wildcards.get("method")
    words = [] if method is None else ["--method", method.removeprefix("-") or ALL_METHODS[0]]
    return " ".join([*words, "--seed", wildcards.seed.removeprefix("-seed") or "0"])


def section(notebook, stage=0):
    "The notebook's part of the profile: a change there, and only there, runs the notebook again."
    return dict(notebook=notebook, section=repr(profile.get(notebook) or {}), stage=stage)


def of_model(notebook, stage=0):
    return section(notebook, stage) | dict(training=training)


def every(notebook, inits, methods, seeds):
    suffixes = [("" if m == ALL_METHODS[0] else f"-{m}") + (f"-seed{s}" if s else "") for m in methods for s in seeds]
    return [f"{BASE}/{b}/{i}{suffix}/{notebook}/metrics.json" for b, i in STARTS if i in inits for suffix in suffixes]


def archives():
    "What lies in the data folder: another archive there, and the data is read anew."
    if (profile.get("00_data") or {}).get("source") != "archives": return ""
    folder = or_stop(check, "00_data", {"profile": PROFILE}).data_dir
    if not folder.is_dir(): return ""
    return repr(sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir()))


rule all:
    input: f"{BASE}/report.html"


# Results are marked `update`: Snakemake then leaves the earlier ones where they are until the notebook puts whole new
# ones in their place, and a rerun that fails leaves them.
rule data:
    input: "nbs/00_data.ipynb", MANIFESTS
    output: update(f"{DATA}/00_data/metrics.json")
    params: **section("00_data"), archives=archives()
    threads: THREADS
    shell: SHELL


rule build_dataset:
    input: "nbs/01_build_dataset.ipynb", rules.data.output
    output: update(f"{DATA}/01_build_dataset/metrics.json")
    params: **section("01_build_dataset")
    threads: THREADS
    shell: SHELL


# Every step with a model runs as this one does.
rule train_stage1:
    input: "nbs/02_train_stage1.ipynb", rules.build_dataset.output
    output: update(f"{STEP}/02_train_stage1/metrics.json"), update(f"{STEP}/02_train_stage1/model.safetensors")
    params: **of_model("02_train_stage1", stage=1)
    threads: THREADS
    resources: gpu=1    # one at a time where `--resources gpu=1` says so; free otherwise
    shell: MODEL


use rule train_stage1 as train_stage2 with:
    input: "nbs/03_train_stage2.ipynb", rules.train_stage1.output
    output: update(f"{STAGE2}/03_train_stage2/metrics.json"), update(f"{STAGE2}/03_train_stage2/model.safetensors")
    params: **of_model("03_train_stage2", stage=2)


use rule train_stage1 as eval_retrieval with:
    input: "nbs/04_eval_retrieval.ipynb", rules.train_stage2.output
    output: update(f"{STAGE2}/04_eval_retrieval/metrics.json")
    params: **of_model("04_eval_retrieval")


use rule train_stage1 as eval_recognition with:
    input: "nbs/05_eval_recognition.ipynb", rules.train_stage2.output
    output: update(f"{STAGE2}/05_eval_recognition/metrics.json")
    params: **of_model("05_eval_recognition")


rule ablation_variant:
    input: "nbs/06_ablations.ipynb", rules.train_stage1.output
    output: temp(f"{STEP}/06_ablations/unfinished/training/{{variant}}/model.safetensors")
    params: device=own_gpu, **of_model("06_ablations")
    threads: max(1, THREADS // max(1, len(GPUS)))    # one a GPU, side by side
    resources: gpu=1
    shell: VARIANT


use rule train_stage1 as ablations with:
    input:
        "nbs/06_ablations.ipynb",
        rules.train_stage1.output,
        [f"{STEP}/06_ablations/unfinished/training/{v}/model.safetensors" for v in VARIANTS],
    output: update(f"{STEP}/06_ablations/metrics.json")
    params: **of_model("06_ablations")


use rule train_stage1 as explore with:
    input: "nbs/07_explore.ipynb", TRAINED
    output: update(f"{STEP}/07_explore/metrics.json")
    params: **of_model("07_explore")


use rule train_stage1 as protocol with:
    input: "nbs/07b_protocol.ipynb", rules.train_stage1.output, TRAINED
    output: update(f"{STEP}/07b_protocol/metrics.json")
    params: **of_model("07b_protocol")
    priority: 1    # the longest of what waits for the training: begun last, it would keep the report waiting alone


rule report:
    input:
        "nbs/08_report.ipynb",
        every("04_eval_retrieval", INITS, METHODS, SEEDS), every("05_eval_recognition", INITS, METHODS, SEEDS),
        every("06_ablations", **ONCE), every("07_explore", **ONCE),
        # its controls are trainings too: one of each says no more than one of the model
        every("07b_protocol", **ONCE | dict(seeds=SEEDS)),
    output: update(f"{BASE}/report.html")
    params: **section("08_report")
    threads: THREADS
    shell: SHELL
