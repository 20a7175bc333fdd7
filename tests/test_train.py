"""A training that is killed, starved or misled: what it says, what it keeps, and that it ends as if nothing had happened."""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import resource
import torch
from hypothesis import given, settings, strategies as st

from sarclip.training.resume import States
from sarclip.training.loader import PairData, limit_repeats
from sarclip.training.loss import LOSSES
from sarclip.models.checkpoint import load_checkpoint
from sarclip.models.factory import create
from sarclip.training.recipe import TrainConfig, recipe
from sarclip.training.train import forget, train

STEPS, EVERY = 12, 3
CONFIG = recipe("sarclip-mini", batch_size=8, max_steps=STEPS, checkpoint_every=EVERY, speckle_looks=4, max_repeats=3, validate_every=5)

PROGRAM = f"""
import os, signal, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_train import CONFIG, toy
from sarclip.models.factory import create
from sarclip.training.train import train
if sys.argv[2] == "while writing":
    save, calls = torch.save, []
    def killed(state, file):
        calls.append(1)
        if len(calls) == 2:
            file.write(b"half a state")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, file)
    torch.save = killed
train(create("sarclip-mini"), toy(), CONFIG, sys.argv[1], progress=False, validation=toy(9))
"""


pytestmark = pytest.mark.usefixtures("one_thread")


def toy(seed: int = 0, kind: type = PairData) -> PairData:
    "Forty noisy squares with two captions each."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (40, 64, 64, 1), dtype=np.uint8)
    for i in range(40): images[i, 8:24 + i % 4 * 8, 8:40] += 120
    texts = [f"{text} of length {i % 4}" for i in range(40) for text in ("a bright square", "one square")]
    return kind(images, np.repeat(np.arange(40), 2), texts, [json.dumps([["is", str(i % 4)]]) for i in range(40) for _ in range(2)])


def weights(folder: Path) -> dict[str, torch.Tensor]: return load_checkpoint(folder).model.state_dict()


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    differ = [name for name in a if not torch.equal(a[name], b[name])]
    assert not differ, f"{len(differ)} of {len(a)} weights differ, {differ[:3]}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The folder of a run that nobody disturbed."
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train(create("sarclip-mini"), toy(), CONFIG, folder, progress=False, validation=toy(9))
    return folder


def logged(folder: Path) -> list[dict]:
    "The log without what the clock says."
    timed = ("seconds", "images_per_s", "data_share")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in (folder / "train_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("when", ["at a random step", "while writing"])
def test_killed_training_ends_with_the_weights_of_an_undisturbed_one(whole, tmp_path, when):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), when], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if when == "at a random step":
        step, log, deadline = random.randrange(1, STEPS), tmp_path / "train_log.jsonl", time.monotonic() + 120
        while not log.exists() or log.read_text().count("\n") < step:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
            time.sleep(0.005)
        process.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output[-3000:]
    train(create("sarclip-mini"), toy(), CONFIG, tmp_path, progress=False, validation=toy(9))
    assert_equal(weights(whole), weights(tmp_path))
    assert logged(tmp_path) == logged(whole) and not list(tmp_path.rglob("*.part"))


class Surprise(PairData):
    "Data that calls `happen` when a batch is asked for."
    at, happen = 7, staticmethod(lambda: None)

    def batches(self, batch_size, seed, epoch, start=0, max_repeats=None):
        for i, batch in enumerate(super().batches(batch_size, seed, epoch, start, max_repeats), epoch * self.steps_per_epoch(batch_size) + start):
            if i == self.at: self.happen()
            yield batch


def test_full_disk_is_one_sentence_and_the_rest_is_made_up(whole, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    data = toy(kind=Surprise)
    object.__setattr__(data, "happen", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1])))    # no larger file from here on
    try:
        with pytest.raises(OSError, match=r"^the state after step [69] could not be written to .*: .*; the state after step [36] is intact. Free some space") as caught:
            train(create("sarclip-mini"), data, CONFIG, tmp_path, progress=False)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value) and not (tmp_path / "model.safetensors").exists() and not list(tmp_path.rglob("*.part"))
    train(create("sarclip-mini"), toy(), CONFIG, tmp_path, progress=False)
    assert_equal(weights(whole), weights(tmp_path))


def spoiled(after: int, spoil) -> object:
    "The loss, until it is spoiled in a step."
    calls, loss = [], LOSSES[CONFIG.loss]
    def patched(image, text, scale, facts):
        calls.append(1)
        value = loss(image, text, scale, facts)
        return spoil(value) if len(calls) > after else value
    return patched


def explode(value): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value): return value.clone()
    @staticmethod
    def backward(ctx, gradient): return gradient * float("nan")


@pytest.mark.parametrize("spoil, kind, message", [
    (lambda value: value * float("nan"), FloatingPointError, r"^loss became nan at step 7 of 12 \(epoch 1, .*lower lr or check the data; the state after step 6 is intact$"),
    (NoGradient.apply, FloatingPointError, r"^grad_norm became nan at step 7 of 12"),
    (explode, MemoryError, r"^the GPU's memory is too small for batches of 8: lower batch_size, or keep it and lower micro_batch .* the state after step 6 is intact$")])
def test_what_stops_a_run_is_explained_and_keeps_its_state(monkeypatch, tmp_path, spoil, kind, message):
    monkeypatch.setitem(LOSSES, CONFIG.loss, spoiled(7, spoil))
    with pytest.raises(kind, match=message): train(create("sarclip-mini"), toy(), CONFIG, tmp_path, progress=False)
    assert not (tmp_path / "model.safetensors").exists() and len(logged(tmp_path)) == 7
    states = [torch.load(path, weights_only=True) for path in sorted(tmp_path.glob("states/*/step_*.pt"))]
    assert [state["step"] for state in states] == [3, 6]
    assert all(torch.isfinite(v).all() for state in states for v in state["model"].values() if v.is_floating_point())
    assert not [thread for thread in threading.enumerate() if thread.daemon and "work" in thread.name], "the prefetching thread goes on"


def test_damaged_state_is_passed_over(whole, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setitem(LOSSES, CONFIG.loss, spoiled(10, explode))
        with pytest.raises(MemoryError): train(create("sarclip-mini"), toy(), CONFIG, tmp_path, progress=False)
    newest = max(tmp_path.glob("states/*/step_*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    train(create("sarclip-mini"), toy(), CONFIG, tmp_path, progress=False)
    assert "step_00000009.pt is damaged" in capsys.readouterr().out
    assert_equal(weights(whole), weights(tmp_path))


def test_other_settings_or_data_start_anew_and_a_forgotten_run_does_too(tmp_path, capsys):
    short = recipe("sarclip-mini", batch_size=8, max_steps=2)
    def run(config: TrainConfig = short, data: PairData | None = None) -> str:
        train(create("sarclip-mini"), data or toy(), config, tmp_path, progress=False)
        return capsys.readouterr().out
    assert run() == ""
    assert "going on after step 2 of 2" in run()
    assert "going on" in run(recipe("sarclip-mini", batch_size=8, max_steps=2, keep_last=5)), "what changes no weight needs no new run"
    assert "training anew" in (said := run(recipe("sarclip-mini", batch_size=8, max_steps=2, lr=1e-4))) and "setting lr 0.001 → 0.0001" in said
    assert "training anew" in (said := run(data=toy(1))) and "(data" in said
    assert "going on after step 2 of 2" in run(), "the first run's states were left alone"
    forget(tmp_path)
    assert run() == "" and json.loads((tmp_path / "train_log.jsonl").read_text().splitlines()[0])["step"] == 0


def test_seed_decides_and_the_callers_random_state_stays(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = ([entry["loss"] for entry in train(create("sarclip-mini"), toy(), recipe("sarclip-mini", batch_size=8, max_steps=3, seed=seed), progress=False)] for seed in (0, 1))
    again = [entry["loss"] for entry in train(create("sarclip-mini"), toy(), recipe("sarclip-mini", batch_size=8, max_steps=3), progress=False)]
    assert one == again != other
    assert torch.equal(before, torch.get_rng_state()) and not torch.are_deterministic_algorithms_enabled()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=8, max_size=120), st.integers(2, 12), st.integers(1, 4), st.integers(0, 5))
def test_no_meaning_comes_more_often_than_allowed(meanings, batch_size, limit, seed):
    group = np.array(meanings)
    batches = max(1, len(group) // batch_size)
    if len(set(meanings)) * limit < batch_size:
        with pytest.raises(ValueError, match="set max_repeats to at least"): limit_repeats(group, batches, batch_size, limit, np.random.default_rng(seed))
        return
    order = limit_repeats(group, batches, batch_size, limit, np.random.default_rng(seed))
    assert order.shape == (batches, batch_size) and 0 <= order.min() and order.max() < len(group)
    assert max(np.bincount(group[batch]).max() for batch in order) <= limit
    if max(np.bincount(group)) <= limit * batches and len(group) >= order.size: assert len(np.unique(order)) == order.size, "an image came twice although all fit"


@pytest.mark.parametrize("wrong, message", [
    ({"microbatch": 8}, "unknown training setting 'microbatch'; did you mean 'micro_batch'"), ({"max_repeats": 0}, "max_repeats must be None or a whole number of at least 1"),
    ({"precision": "half"}, "precision must be one of auto, mixed, float32"), ({"checkpoint_every": 0}, "checkpoint_every must be"), ({"keep_last": True}, "keep_last must be"),
    ({"frozen_bn": 1}, "frozen_bn must be True or False"), ({"speckle_looks": 1.5}, "speckle_looks must be")])
def test_settings_are_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message): recipe("RN50", **wrong)


def test_state_holds_nothing_that_could_run(whole):
    states = list(whole.glob("states/*/step_*.pt"))
    assert [s.name for s in sorted(states)] == ["step_00000009.pt", "step_00000012.pt"], "the last two are kept"
    state = torch.load(states[0], weights_only=True)
    assert state.keys() == {"step", "model", "optimizer", "log", "world", "total"}
    identity = json.loads((states[0].parent / "identity.json").read_text())
    assert States(whole / "states", identity, 2).folder == states[0].parent and os.listdir(whole / "best")
