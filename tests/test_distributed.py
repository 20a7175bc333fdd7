"""Several processes train as one does: the same batches, loss and weights, and a clear end when one of them is lost."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import sarclip    # noqa: F401  before open_clip, which imports torchvision
import open_clip
from sarclip.models.harma import add_harma
from sarclip.training.loader import PairData
from sarclip.models.factory import Encoder, create
from sarclip.models.weights import load_weights
from sarclip.captions.outputs import write_shards
from sarclip.training.recipe import TrainConfig
from sarclip.core.records import Record, records_to_frame
from sarclip.training.shards import Shards
from sarclip.training.train import train

STEPS = 5
RUNS = {    # what is trained, and how; two processes must not change any of it
    "contrastive": ("vit", {}),
    "meanings": ("vit", {"loss": "facts", "max_repeats": 2, "quarter_turns": True, "speckle_looks": 2}),
    "micro": ("vit", {"micro_batch": 3, "checkpointing": True}),
    "places": ("vit", {"false_captions": 1.0, "micro_batch": 3}),
    "resnet": ("resnet", {"frozen_bn": True, "micro_batch": 4}),
    "harma": ("harma", {"loss": "harma"}),
}
VIT = {"embed_dim": 32, "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
       "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}}


def encoder(kind: str) -> Encoder:
    mini = create("sarclip-mini")
    if kind == "resnet": return mini
    torch.manual_seed(0)
    vit = Encoder(open_clip.CLIP(**VIT).eval(), mini.tokenizer, 64, mini.mean, mini.std, "sarclip-mini")    # saved under a name that OpenCLIP knows
    return add_harma(vit, width=16, heads=2) if kind == "harma" else vit


def toy() -> PairData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (24, 64, 64, 1), dtype=np.uint8)
    captions, facts = [f"a square of length {i % 7}" for i in range(24)], [json.dumps([["is", str(i % 7)]]) for i in range(24)]
    for i in range(0, 24, 5):    # some speak of a place, so that the processes have different numbers of false captions
        captions[i], facts[i] = f"square {i % 7} in the upper left", json.dumps([["at", str(i % 7), 1, "upper left"]])
    return PairData(images, np.arange(24), captions, facts, [("upper right", "center")] * 24)


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"backbone": "sarclip-mini", "batch_size": 8, "epochs": 9, "max_steps": STEPS, "lr": 1e-3, "eps": 1e-3, "shift": 0.05, "checkpoint_every": 2, **changes})


PROGRAM = f"""
import os, sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_distributed import RUNS, Shards, STEPS, config, encoder, toy
from sarclip.training.distributed import joined, rank
from sarclip.training.train import train
folder = Path(sys.argv[1])
with joined("cpu"):
    for name, (kind, changes) in RUNS.items(): train(encoder(kind), toy(), config(**changes), folder / name, progress=False)
    shards = Shards(folder / "shards", 64)
    (folder / f"seen_{{rank()}}").write_text(" ".join(caption for batch in shards.batches(8, 0, 0) for caption in batch.captions))
    train(encoder("vit"), shards, config(max_steps=3), folder / "from_shards", progress=False)
    try: train(encoder("resnet"), toy(), config(), None, progress=False)
    except ValueError as error: print("REFUSED", error)
    try: train(encoder("vit"), toy(), config(batch_size=7), None, progress=False)
    except ValueError as error: print("REFUSED", error)
"""


def write_toy_shards(folder: Path) -> None:
    from PIL import Image
    (folder / "toy").mkdir(parents=True)
    for i, image in enumerate(toy().images): Image.fromarray(image[..., 0]).save(folder / f"toy/{i}.png")
    import pandas as pd
    records = records_to_frame([Record("toy", f"toy/{i}.png", f"{i}.png") for i in range(24)])
    records["root"], records["tone"], records["crop"] = "toy", "none", pd.array([None] * 24, dtype="Int64")
    pairs = pd.DataFrame({"image_id": [f"toy/{i}.png" for i in range(24)], "caption": [f"image{i}" for i in range(24)], "facts": ['[["is","x"]]'] * 24})
    write_shards(pairs, records, folder, folder / "shards", "train", seed=0, samples=6)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    "The folder and the output of two processes that made all runs."
    folder = tmp_path_factory.mktemp("two")
    write_toy_shards(folder)
    (folder / "program.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", folder / "program.py", folder],
                          capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder, done.stdout


def log(folder: Path) -> list[dict]: return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one(two, tmp_path, name):
    kind, changes = RUNS[name]
    alone = encoder(kind)
    start = {k: v.clone() for k, v in alone.model.state_dict().items()}
    train(alone, toy(), config(**changes), tmp_path, progress=False)
    together, mine = log(two[0] / name), log(tmp_path)
    assert [entry["images"] for entry in together] == [8] * STEPS
    assert [entry["loss"] for entry in together] == pytest.approx([entry["loss"] for entry in mine], rel=1e-5)
    assert [entry["grad_norm"] for entry in together] == pytest.approx([entry["grad_norm"] for entry in mine], rel=1e-3)
    found, moved = load_weights(two[0] / name / "model.safetensors"), 0
    for weight, value in alone.model.state_dict().items():    # Adam makes a whole step of a gradient that is all rounding, so a few single values may differ
        way, apart = ((to - value).double().norm() for to in (start[weight], found[weight]))
        assert apart <= 3e-2 * way + 1e-6, weight
        moved += not torch.allclose(start[weight], value, atol=2e-4)
    assert moved > 10, "nothing was learned, so nothing was compared"


def test_shards_are_shared_out_without_remainder_or_repeat(two):
    seen = [(two[0] / f"seen_{rank}").read_text().split() for rank in (0, 1)]
    assert [len(s) for s in seen] == [12, 12] and sorted(sum(seen, [])) == sorted(f"image{i}" for i in range(24))
    assert [entry["images"] for entry in log(two[0] / "from_shards")] == [8] * 3


def test_what_cannot_be_shared_is_refused(two):
    refused = [line for line in two[1].splitlines() if "REFUSED" in line]
    assert any("BatchNorm cannot be shared by processes on a CPU; set frozen_bn" in line for line in refused)
    assert any("a batch of 7 cannot be shared by 2 processes; choose a batch_size that is a multiple of 2" in line for line in refused)


LONG = f"""
import sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_distributed import config, encoder, toy
from sarclip.training.distributed import joined
from sarclip.training.train import train
with joined("cpu"): train(encoder("vit"), toy(), config(max_steps=2000, epochs=2000), sys.argv[1], progress=False)
"""


def test_lost_process_ends_the_others_with_a_sentence_and_a_state(tmp_path):
    store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen([sys.executable, "-c", LONG, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  env=os.environ | store | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in (0, 1)]
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("states/*/step_*.pt")):
        assert all(p.poll() is None for p in processes) and time.monotonic() < deadline, [p.communicate()[0][-1500:] for p in processes]
        time.sleep(0.05)
    processes[1].kill()
    output, _ = processes[0].communicate(timeout=60)
    processes[1].communicate()
    assert processes[0].returncode not in (0, -signal.SIGKILL)
    last = output.strip().splitlines()[-1]
    assert "ConnectionError: process 0 of 2 lost the others" in last and "is intact, and the same command goes on from there" in last, output[-1500:]
    state = torch.load(max(tmp_path.glob("states/*/step_*.pt")), weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["model"].values())


def test_other_number_of_processes_goes_on_from_the_same_state(two, capsys):
    states = two[0] / "contrastive" / "states"
    newest = max(states.glob("*/step_*.pt"))
    assert newest.name == "step_00000005.pt"
    newest.unlink()    # as if the two had been killed before the last step
    finished = load_weights(two[0] / "contrastive" / "model.safetensors")
    alone = encoder("vit")
    train(alone, toy(), config(), two[0] / "contrastive", progress=False)
    assert "going on after step 4 of 5" in capsys.readouterr().out
    assert all(torch.allclose(finished[name], value, atol=2e-5) for name, value in alone.model.state_dict().items())


def test_run_from_shards_is_found_by_one_process_when_it_is_finished_and_only_then(two, capsys):
    folder, shards = two[0] / "from_shards", Shards(two[0] / "shards", 64)
    finished, alone = load_weights(folder / "model.safetensors"), encoder("vit")
    assert [entry["step"] for entry in train(alone, shards, config(max_steps=3), folder, progress=False)] == [0, 1, 2]
    assert "going on after step 3 of 3" in capsys.readouterr().out
    assert all(torch.equal(finished[name], value) for name, value in alone.model.state_dict().items())
    max(folder.glob("states/*/step_*.pt")).unlink()    # as if the two had been killed before the last step
    with pytest.raises(ValueError, match="state after step 2 of 3 was left by 2 processes, which share the shards otherwise than 1 would; start 2 again"):
        train(encoder("vit"), shards, config(max_steps=3), folder, progress=False)


def test_slurm_profile_plans_the_study(fresh):
    profile = str(Path(__file__).resolve().parent.parent / "slurm")
    status, output = fresh.call("snakemake", "--dry-run", "--nolock", "--cores", "16", "--workflow-profile", profile, "--config", "profile=tiny", "backbones=ViT-B-32", "inits=stage1")
    assert status == 0, output[-3000:]
    plan = {block.split(":")[0]: block for block in output.split("\nrule ")[1:]}
    assert "slurm_partition=gpu" in plan["train_stage2"] and "gpu=4" in plan["train_stage2"] and "threads: 16" in plan["train_stage2"], plan["train_stage2"]
    assert "slurm_partition=batch" in plan["build_dataset"] and "gpu" not in plan["build_dataset"].split("resources:")[1], plan["build_dataset"]
