"""Data steps touch what the run wrote and nothing else, whatever keys and places they are given."""
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import ROOT
from sarclip.data.entries import Dataset, Release, ReleaseFile
from sarclip.data.manifest import load_manifest
from sarclip.data.prepare import prepare
from sarclip.data.sources import generate, unpack_archives

MANIFEST = load_manifest(ROOT / "data_manifest.yaml")


def owned(**changes) -> Dataset:
    "A dataset that comes as a folder, or as a tar file where `files` says so."
    release = Release(**{"name": "own", "kind": "owner", "reader": "class_folders", "manual": "mine"} | changes)
    return MANIFEST.datasets["rsscn7"].model_copy(update={"name": "mine", "releases": [release]})


def contents(folder: Path) -> dict[str, bytes]:
    "Every file below a folder, links not followed."
    return {os.path.join(place, name): Path(place, name).read_bytes() for place, _, names in os.walk(folder) for name in names}


PLACES = ("one", "one/mine", "one/mine/deep", "two", "link to one", "link to mine", "two/mine")


@pytest.mark.parametrize("data, dest", list(itertools.product(PLACES, PLACES)))
def test_no_pair_of_places_loses_a_file(tmp_path, data, dest):
    "Data folder and run folder: apart, equal, inside and around each other, by path and by link."
    for folder in ("one/mine/a", "one/mine/deep/mine/a", "one/mine/mine/a", "two/mine/a", "two/mine/mine/a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "picture.png").write_text(folder)
    (tmp_path / "link to one").symlink_to(tmp_path / "one")
    (tmp_path / "link to mine").symlink_to(tmp_path / "one/mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="are one place, or one lies inside the other|holds what no run of this project wrote"):
        prepare(owned(), tmp_path / data, tmp_path / dest)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("dest", ["far", "one/run", "link to one/run"])
def test_a_place_apart_is_linked_again_and_again(tmp_path, dest):
    (tmp_path / "one/mine/a").mkdir(parents=True)
    (tmp_path / "one/mine/a/picture.png").write_text("only copy")
    (tmp_path / "link to one").symlink_to(tmp_path / "one")
    for _ in range(2):
        prepare(owned(), tmp_path / "one", tmp_path / dest)
        assert (tmp_path / dest / "mine").is_symlink() and (tmp_path / dest / "mine/a/picture.png").read_text() == "only copy"
    assert (tmp_path / "one/mine/a/picture.png").read_text() == "only copy"


def test_unpacked_data_is_replaced_only_while_it_is_as_it_was_written(tmp_path):
    (tmp_path / "source/mine").mkdir(parents=True)
    (tmp_path / "source/mine/a.txt").write_text("1")
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data/mine.tar", "w") as tar: tar.add(tmp_path / "source/mine", "mine")
    digest = hashlib.sha256((tmp_path / "data/mine.tar").read_bytes()).hexdigest()
    mine = owned(kind="repack", folder="mine", files=[ReleaseFile(name="mine.tar", sha256=digest)])
    for _ in range(2): prepare(mine, tmp_path / "data", tmp_path / "run")
    target = tmp_path / "run/mine"
    (target / "b.txt").write_text("added by hand")
    with pytest.raises(ValueError, match=r"mine holds what no run of this project wrote .*\(b.txt\)"): prepare(mine, tmp_path / "data", tmp_path / "run")
    (target / "b.txt").unlink()
    (target / "a.txt").write_text("corrected by hand")
    with pytest.raises(ValueError, match=r"\(a.txt\)"): prepare(mine, tmp_path / "data", tmp_path / "run")
    assert (target / "a.txt").read_text() == "corrected by hand"


def study(folder: Path, seed: int, scale: float) -> list[str]:
    "Instead of the simulated study: one picture, in a moment."
    (folder / "mstar/a").mkdir(parents=True)
    (folder / "mstar/a/picture.png").write_text("simulated")
    return ["mstar"]


def test_the_folder_of_the_run_itself_is_refused_as_data_and_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("sarclip.data.sources.write_study", study)
    datasets = tmp_path / "run/real/data/datasets"
    generate(MANIFEST, datasets, seed=0, scale=0.03)
    before = contents(datasets)
    for data in (datasets, datasets / "mstar", tmp_path / "link"):
        if data.name == "link": data.symlink_to(datasets)
        with pytest.raises((ValueError, FileNotFoundError), match="are one place|no dataset of the manifest lies in"): unpack_archives(MANIFEST, data, datasets, [])
    assert contents(datasets) == before
    (datasets / "somebody").mkdir()
    (datasets / "somebody/s.txt").write_text("not the run's")
    with pytest.raises(ValueError, match="somebody holds what no run of this project wrote"): generate(MANIFEST, datasets, seed=0, scale=0.03)
    assert contents(datasets) == before | {str(datasets / "somebody/s.txt"): b"not the run's"}


@pytest.mark.parametrize("key", ["/victim", "..", "a/b", '""', ".", "a\\b", "C:", "ü", "a" * 65])
def test_keys_that_are_no_names_never_reach_the_file_system(tmp_path, key):
    entry = f"datasets:\n  {key}:\n    title: mine\n    releases: []\n"
    (tmp_path / "own.yaml").write_text(entry)
    with pytest.raises(ValueError, match=r"own.yaml, line 2, datasets.*: expected a key of at most 64 letters .*, found '"): load_manifest(ROOT / "data_manifest.yaml", tmp_path / "own.yaml")


KILLED = """
import sys, time
from pathlib import Path
import sarclip.data.sources as sources
from sarclip.data.manifest import load_manifest
def slow(folder, **how):
    (folder / "half").write_text("half a study")
    print("written", flush=True)
    time.sleep(600)
sources.write_study = slow
sources.generate(load_manifest(Path(sys.argv[2])), Path(sys.argv[1]), seed=0, scale=0.03)
"""


def test_what_a_killed_preparation_left_is_swept_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("sarclip.data.sources.write_study", study)
    datasets = tmp_path / "data/datasets"
    process = subprocess.Popen([sys.executable, "-c", KILLED, datasets, ROOT / "data_manifest.yaml"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [p.name for p in datasets.parent.iterdir()] != [] and not datasets.exists()
    generate(MANIFEST, datasets, seed=0, scale=0.03)
    assert [p.name for p in datasets.parent.iterdir()] == ["datasets"] and not [p.name for p in datasets.iterdir() if p.name.endswith(".part")]
