"""Killed at any moment, started again: the same results, bit for bit, and nothing left lying about.

Minutes to hours long; `make slow` runs it. `KILLS=5` makes it shorter.
"""
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import STUDY, TINY, Project

pytestmark = pytest.mark.slow
KILLS, SEED = int(os.environ.get("KILLS", "20")), 11
ONE_THREAD = {"OMP_NUM_THREADS": "1"}    # sums in one order, however busy the machine is
TIMED = ("seconds", "images_per_s", "data_share", "data_wait_share")
TIMED_FOLDERS = (".written", "cache")    # data made again has new time stamps, and ready arrays are named after those
UNLIKE = ("provenance.json",)    # it tells when and how long; so do notebooks, their pages, locks and `.written`


def content(path: Path) -> bytes:
    "What must be equal of a file: all of it, but for what the clock says."
    if path.name == "metrics.json":
        return json.dumps({k: v for k, v in json.loads(path.read_text()).items() if not k.endswith(TIMED)}).encode()
    if path.name == "train_log.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return json.dumps([{k: v for k, v in line.items() if k not in TIMED} for line in lines]).encode()
    if path.suffix == ".safetensors":    # several words about a file stand in its header in any order
        length = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8:8 + length])
        return json.dumps(header, sort_keys=True).encode() + path.read_bytes()[8 + length:]
    return path.read_bytes()


def told_when(path: Path) -> bool:
    "Whether a file says when it was made: a notebook, its page, the report, a lock."
    return path.suffix in (".ipynb", ".lock", ".sqlite") or path.name == "report.html" or path.with_suffix(".ipynb").exists()


def hashes(runs: Path) -> dict[str, str]:
    "Every result below a folder of runs."
    results = [path for path in sorted(runs.rglob("*")) if path.is_file() and not told_when(path)]
    return {path.relative_to(runs).as_posix(): hashlib.sha256(content(path)).hexdigest()
            for path in results if path.name not in UNLIKE and path.parent.name not in TIMED_FOLDERS and not path.name.endswith(".lock")}


def litter(runs: Path) -> list[Path]:
    return [path for path in runs.rglob("*") if path.name.endswith((".part", ".running.ipynb")) or path.name == "unfinished"]


def assert_same(runs: Path, wanted: dict[str, str]) -> None:
    found = hashes(runs)
    differ = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    assert not differ, f"{len(differ)} of {len(wanted)} files differ: {differ[:40]}"
    assert not litter(runs)


def kill_often(project: Project, words: tuple[str, ...], kills: int, seconds: float, rng: random.Random, again) -> dict[str, int]:
    """Start a command and kill it at a random moment, `kills` times; every other time only the first process, whose
    children live on. `again` is called where it ended first."""
    done = {"killed": 0, "ended": 0}
    while done["killed"] < kills:
        process = project.start(*words, **ONE_THREAD)
        try:
            process.wait(rng.uniform(0, seconds))
            output = process.communicate()[0]
            assert process.returncode == 0, output[-3000:]
            done["ended"] += 1
            again()
        except subprocess.TimeoutExpired:
            (os.killpg if done["killed"] % 2 else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            done["killed"] += 1
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str], float]:
    "A project after a study that nobody disturbed, its results, and the seconds it took."
    project, began = Project(tmp_path_factory.mktemp("kills") / "sarclip"), time.monotonic()
    # the data steps by several processes, as the profile mini has them
    with_workers = TINY.replace("scale: 0.06", "scale: 0.06, workers: 2") + "01_build_dataset: {workers: 2}\n"
    (project.folder / "profiles/tiny.yaml").write_text(with_workers)
    status, output = project.call(*STUDY, **ONE_THREAD)
    assert status == 0, output[-4000:]
    return project, hashes(project.runs), time.monotonic() - began


def check_step(project: Project, wanted: dict[str, str], notebook: str) -> dict[str, int]:
    words, began = ("sarclip-run", notebook, "--profile", "tiny"), time.monotonic()
    status, output = project.call(*words, **ONE_THREAD)
    assert status == 0, output[-3000:]
    done = kill_often(project, words, KILLS, time.monotonic() - began, random.Random(f"{SEED} {notebook}"), lambda: assert_same(project.runs, wanted))
    status, output = project.call(*words, **ONE_THREAD)
    assert status == 0, output[-3000:]
    assert_same(project.runs, wanted)
    return done


@pytest.mark.parametrize("notebook", ["00_data", "01_build_dataset", "03_train_stage2"])
def test_a_killed_step_ends_as_if_nothing_had_happened(whole, notebook):
    project, wanted, _ = whole
    print(notebook, check_step(project, wanted, notebook))


def test_a_killed_study_ends_as_if_nothing_had_happened(whole):
    project, wanted, seconds = whole
    def again() -> None:
        assert_same(project.runs, wanted)
        shutil.rmtree(project.runs)
    shutil.rmtree(project.runs)
    print("study", kill_often(project, STUDY, KILLS, seconds / 4, random.Random(SEED), again))
    status, output = project.call(*STUDY, **ONE_THREAD)
    assert status == 0, output[-3000:]
    assert_same(project.runs, wanted)
