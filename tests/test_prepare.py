"""Data steps touch what the run wrote and nothing else, whatever keys and places they are given."""
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from sarclip.captions.build import build_tables
from sarclip.core.problems import Problems
from sarclip.core.records import Box
from sarclip.data.choice import choose_release
from sarclip.data.entries import Dataset, Release, ReleaseFile
from sarclip.data.formats.class_folders import write_class_folders
from sarclip.data.formats.coco import write_coco
from sarclip.data.formats.common import make_record
from sarclip.data.formats.mstar import mstar_path, write_mstar, write_mstar_jpeg
from sarclip.data.manifest import load_manifest
from sarclip.data.prepare import prepare
from sarclip.data.reading import read_dataset
from sarclip.data.sources import generate, read_and_decode, read_sources, unpack_archives, verified, warnings
from sarclip.data.split import evaluation_parts

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


def study(folder: Path, seed: int, scale: float, workers: int) -> list[str]:
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
    for place in (datasets / ".unreadable.json.killed.part", datasets / ".written" / ".mstar.json.killed.part"): place.write_text("half")
    generate(MANIFEST, datasets, seed=0, scale=0.03)
    assert not list(datasets.rglob("*.part"))
    assert [p.name for p in datasets.parent.iterdir()] == ["datasets"] and not [p.name for p in datasets.iterdir() if p.name.endswith(".part")]


# ---------------------------------------------------------------- which release is taken

MORE = """\
datasets:
  mstar:
    releases:
      - {{name: {name}, kind: owner, reader: {reader}, tone: {tone}, images: 4, manual: our own copy}}
"""


@pytest.mark.parametrize("write, ending, name, reader, tone", [
    (write_mstar, "000", "phoenix_30", "mstar", "percentile"), (write_mstar_jpeg, "000.jpeg", "jpeg_30", "mstar_jpeg", "none")])
def test_a_local_release_brings_the_chips_at_30_degrees_to_eoc1(tmp_path, write, ending, name, reader, tone):
    """The owner's Phoenix files and JPEG, beside an archive of the same dataset: the user's release is taken, and 00 says why."""
    (tmp_path / "more.yaml").write_text(MORE.format(name=name, reader=reader, tone=tone))
    manifest = load_manifest(ROOT / "data_manifest.yaml", tmp_path / "more.yaml")
    paths = [(label, serial, angle) for label, serial in (("2S1", ""), ("T72", "A64")) for angle in (17, 30)]
    pixels = np.arange(64, dtype=np.float32 if reader == "mstar" else np.uint8).reshape(8, 8)
    chips = [make_record("mstar", mstar_path(label, serial, angle, f"HB0{n}.{ending}"), labels=(label,), sensor={"serial": serial or "b01", "depression": float(angle)} if reader == "mstar" else {"serial": serial, "depression": float(angle)})
             for n, (label, serial, angle) in enumerate(paths)]
    write(tmp_path / "data/mstar", [(chip, pixels) for chip in chips])
    with open(tmp_path / "data/mstar_15_16_17deg.tar", "wb") as archive: archive.write(b"another")
    sources = unpack_archives(manifest, tmp_path / "data", tmp_path / "run/datasets", [])
    manifest, sources = read_sources(manifest, tmp_path / "run/datasets")
    problems = Problems()
    records = read_and_decode(manifest, sources, tmp_path / "run/datasets", problems)
    train, test = evaluation_parts(records, manifest.evaluations["mstar_eoc1"])
    assert (sources, len(train), len(test), problems.found) == ({"mstar": name}, 2, 2, [])
    state = verified(manifest, sources, records, problems, tmp_path / "data").set_index("dataset").loc["mstar"]
    assert (state.status, state.images) == ("complete", "4 of 4")
    assert f"{name} was taken" in state.why and "release jpeg_15_16_17deg (mstar_15_16_17deg.tar) is there too and not used" in state.why


def test_the_owners_folder_beside_an_archive_is_not_ignored_in_silence(tmp_path):
    (tmp_path / "data/mine/a").mkdir(parents=True)
    (tmp_path / "data/mine/a/picture.png").write_text("owner's")
    (tmp_path / "data/mine.tar").write_bytes(b"packed")
    tar = Release(name="tar", kind="repack", reader="class_folders", manual="ask", files=[ReleaseFile(name="mine.tar", sha256=hashlib.sha256(b"packed").hexdigest())])
    both = owned().model_copy(update={"releases": [tar, owned().releases[0]]})
    choice = choose_release(both, tmp_path / "data")
    assert choice.release.name == "tar" and "release own (the folder of the dataset's name) is there too and not used" in choice.why
    alone = choose_release(both.model_copy(update={"releases": [tar]}), tmp_path / "data")
    assert "the folder" in alone.why and "is not used" in alone.why


def test_an_empty_folder_is_called_empty(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileNotFoundError, match="where its folder is empty"): prepare(owned(), tmp_path, tmp_path / "run")


# ---------------------------------------------------------------- pictures that cannot be decoded

def coco_of(folder: Path, n: int = 10) -> None:
    boxes = (Box("ship", 1, 1, 5, 5),)
    write_coco(folder, [(make_record("sardet_100k", f"JPEGImages/train/{i}.png", size=(8, 8), task="det", boxes=boxes, split="train"), np.full((8, 8), i, np.uint8)) for i in range(n)])


def damaged(folder: Path, change) -> None:
    file = folder / "Annotations/train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "JPEGImages/train/3.png").write_bytes((folder / "JPEGImages/train/3.png").read_bytes()[:40]),
    lambda folder: damaged(folder, lambda c: c["images"][3].update(width=10**19)),
    lambda folder: damaged(folder, lambda c: c["images"][3].update(file_name="n" * 300 + ".png"))], ids=["cut short", "width 1e19", "name of 300 letters"])
def test_one_unreadable_image_is_counted_and_the_study_goes_on(tmp_path, damage):
    folder = tmp_path / "datasets"
    coco_of(folder / "sardet_100k")
    damage(folder / "sardet_100k")
    (folder / "sources.json").write_text('{"sardet_100k": "coco"}')
    manifest, sources = read_sources(MANIFEST, folder)
    problems = Problems()
    records = read_and_decode(manifest, sources, folder, problems)
    assert len(records) == 9 and len([p for p in problems if p.dropped]) == 1
    state = verified(manifest, sources, records, problems, folder)
    assert state.set_index("dataset").status["sardet_100k"] == "corrupt"
    said = warnings(state)
    assert len(said) == 1 and said[0].startswith("sardet_100k is corrupt (9 images): ") and next(p for p in problems if p.dropped).what in said[0]
    again = Problems()
    images, _ = build_tables(manifest, sources, folder, seed=0, problems=again)
    assert len(images) == 9 and [(p.where, p.kind) for p in again if p.dropped] == [(p.where, p.kind) for p in problems if p.dropped]
    with pytest.raises((ValueError, FileNotFoundError)): read_and_decode(manifest, sources, folder, Problems(strict=True))


def test_a_class_that_looks_like_a_number_is_told_with_its_quotes(tmp_path):
    write_class_folders(tmp_path / "mine", [(make_record("mine", "017/a.png", labels=("017",)), np.zeros((8, 8), np.uint8))])
    problems = Problems()
    assert not list(read_dataset("mine", owned(), owned().releases[0], tmp_path / "mine", problems))
    assert 'add `"017": its readable name` under datasets.mine.classes of data_manifest.local.yaml (with the quotes)' in problems.found[0].what
    assert "fetch" not in problems.found[0].what
