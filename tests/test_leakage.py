"""The leakage audit: planted copies are found, whatever their disguise, nothing else is, and the real overlaps are what the sources say."""
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sarclip.data.leakage import audit, copy_groups, drop_overlaps, hold_out_scenes, overlap_metrics, overlap_sizes, shared_targets

from sarclip.data.lookalikes import COPY, MAPS, compare, find_copies, texture
from sarclip.data.manifest import load_manifest
from sarclip.data.prepare import prepare
from sarclip.data.split import evaluation_parts
from sarclip.core.problems import Problems
from sarclip.data.reading import read_dataset
from sarclip.core.records import Box, Record

TONES = dict.fromkeys(("shown", "kept"), "none")


def chip(seed: int, size: int = 128) -> np.ndarray:
    "A bright block with its shadow in one-look speckle, uint8."
    rng = np.random.default_rng(seed)
    band = np.abs(np.fft.fftfreq(size)) < 1 / 3
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))) * np.outer(band, band))
    scene = np.ones((size, size))
    scene[size // 2:size // 2 + 12, size // 2 - 20:size // 2 + 20] = 6
    scene[size // 2 - 20:size // 2, size // 2 - 15:size // 2 + 15] = .2
    magnitude = np.abs(field) * scene
    return np.uint8(255 * np.minimum(magnitude / np.percentile(magnitude, 99.5), 1))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def save(folder: Path, dataset: str, name: str, image: np.ndarray, **facts) -> Record:
    (folder / dataset).mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(folder / dataset / name)
    return Record(dataset, f"{dataset}/{name}", name, **facts)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record], list[np.ndarray]]:
    "Forty images that an examination keeps."
    folder, images = tmp_path_factory.mktemp("leakage"), [chip(s) for s in range(40)]
    return folder, [save(folder, "kept", f"{s:02}.png", image) for s, image in enumerate(images)], images


DISGUISES = {
    **{name: turn for name, turn in MAPS.items() if name != "same"},
    "gamma": lambda a: np.uint8(255 * (a / 255) ** .5),
    "logarithm": lambda a: np.uint8(255 * np.log1p(a) / np.log(256)),
    "negative": lambda a: 255 - a,
    "jpeg": lambda a: jpeg(a, 50),
    "crop": lambda a: a[9:111, 4:120],
    "enlarged": lambda a: np.asarray(Image.fromarray(a).resize((173, 173))),
    "turned, darker and compressed": lambda a: jpeg(np.uint8(255 * (np.rot90(a) / 255) ** 1.5), 75),
}


@pytest.mark.parametrize("disguise", DISGUISES, ids=lambda d: d.replace(" ", "-"))
def test_planted_copies_are_found_and_only_they(kept, disguise):
    folder, records, images = kept
    copies = [save(folder, "shown", f"{disguise}_{n:02}.bmp", DISGUISES[disguise](images[n])) for n in (3, 17)]
    strangers = [save(folder, "shown", f"stranger_{n}.bmp", chip(500 + n)) for n in range(3)]
    found = find_copies(copies + strangers, records, folder, TONES, progress=False)
    assert list(zip(found.image_id, found.other_id, found.kind)) == [(copies[k].image_id, records[n].image_id, "near") for k, n in enumerate((3, 17))]


def test_the_same_pixels_in_another_file_are_exact(kept):
    folder, records, images = kept
    found = find_copies([save(folder, "shown", "same.tif", images[5])], records, folder, TONES, progress=False)
    assert found[["other_id", "kind", "score"]].values.tolist() == [[records[5].image_id, "exact", 1.0]]


def test_pasted_chips_are_found_also_at_the_border(kept):
    folder, records, images = kept
    scene = chip(900, 420)
    scene[40:168, 60:188], scene[330:420, 200:328] = images[7], images[8][:90]
    boxes = (Box("x", 75, 60, 165, 150), Box("x", 215, 365, 300, 420))
    found = find_copies([save(folder, "shown", "scene.png", scene, boxes=boxes)], records, folder, TONES, progress=False)
    assert set(zip(found.other_id, found.kind)) == {(records[7].image_id, "inserted"), (records[8].image_id, "inserted")}


def test_order_and_workers_change_nothing(kept):
    folder, records, images = kept
    shown = [save(folder, "shown", f"order_{n}.png", jpeg(images[n].T, 80)) for n in range(4)]
    one, other = (find_copies(s, r, folder, TONES, workers=w, progress=False) for s, r, w in ((shown, records, 1), (shown[::-1], records[::-1], 2)))
    pd.testing.assert_frame_equal(one, other)


def test_blank_images_are_no_copies_of_each_other(kept):
    folder, _, _ = kept
    flat = [save(folder, "shown", f"flat_{n}.png", np.full((64, 64), 9 * n, np.uint8)) for n in (0, 0, 1)]
    assert find_copies(flat[:1], [save(folder, "kept", "flat.png", np.zeros((64, 64), np.uint8))], folder, TONES, progress=False).empty


def test_an_unreadable_image_is_named(kept):
    folder, records, _ = kept
    (folder / "shown" / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(ValueError, match="torn.png"): find_copies([Record("shown", "shown/torn.png", "torn.png")], records, folder, TONES, progress=False)


def test_a_score_is_symmetric():
    a, b = texture(chip(1), 64, 64), texture(jpeg(np.rot90(chip(1)), 60), 60, 66)
    assert abs(compare(a, [b])[0].score - compare(b, [a])[0].score) < 1e-3 and compare(a, [b])[0].score > COPY


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    "MSTAR at two depressions, SAMPLE in disguise, a serial promised as new, and scenes."
    folder, manifest = tmp_path_factory.mktemp("study"), load_manifest()
    manifest = manifest.model_copy(update={"datasets": {n: manifest.datasets[n].model_copy(update={"tone": "none"}) for n in ("mstar", "sample", "mstar_scenes")},
                                           "evaluations": {n: manifest.evaluations[n] for n in ("mstar_soc", "mstar_eoc2_version")}})
    images = [chip(100 + n) for n in range(12)]
    facts = [("132", 17.0, "train")] * 4 + [("132", 15.0, "val")] * 4 + [("812", 15.0, "")] * 4
    mstar = [save(folder, "mstar", f"{n}.png", image, labels=("T72",), split=split, sensor={"serial": serial, "depression": angle})
             for n, (image, (serial, angle, split)) in enumerate(zip(images, facts))]
    sample = [save(folder, "sample", f"{n}.png", np.uint8(255 * np.sqrt(images[n].T / 255)), labels=("t72",), split="train") for n in (0, 4, 8)]
    sample += [save(folder, "sample", "promised.png", chip(300), labels=("t72",), split="train", sensor={"serial": "812"})]
    scenes = []
    for name, n in (("17.png", 1), ("15.png", 5)):
        scene = chip(400 + n, 300)
        scene[80:208, 80:208] = images[n]
        scenes.append(save(folder, "mstar_scenes", name, scene, split="train", task="det", boxes=(Box("T72", 100, 95, 190, 195),)))
    return folder, manifest, mstar + sample + scenes


def test_audit_names_what_is_shown_and_kept(study):
    folder, manifest, records = study
    overlaps = audit(records, manifest, folder, progress=False)
    assert (overlaps.part == "train").all()
    assert set(zip(overlaps.image_id, overlaps.against, overlaps.kind, overlaps.other_id)) == {
        ("sample/4.png", "held_out", "near", "mstar/4.png"), ("sample/4.png", "mstar_soc", "near", "mstar/4.png"),
        ("sample/8.png", "mstar_eoc2_version", "near", "mstar/8.png"), ("sample/promised.png", "mstar_eoc2_version", "target", "mstar/10.png"),
        ("mstar_scenes/15.png", "held_out", "inserted", "mstar/5.png"), ("mstar_scenes/15.png", "mstar_soc", "inserted", "mstar/5.png")}
    assert set(overlaps["transform"][overlaps.kind == "near"]) == {"transpose"}
    sizes = overlap_sizes(overlaps).set_index(["dataset", "against", "kind"]).images
    assert sizes["sample", "mstar_eoc2_version", "target"] == 1 and overlap_metrics(overlaps)["leakage/sample__mstar_soc/near/images"] == 1
    table = shared_targets(records, manifest).set_index("against")
    assert table.loc["mstar_soc", "promised_new"] == 0 and table.loc["mstar_eoc2_version", "promised_new"] == 1


def test_remedies_leave_nothing_behind(study):
    folder, manifest, records = study
    overlaps = audit(records, manifest, folder, progress=False)
    cleaned = drop_overlaps(hold_out_scenes(records, overlaps), overlaps)
    parts = {r.image_id: r.split for r in cleaned}
    assert [parts[f"sample/{n}.png"] for n in ("0", "4", "8", "promised")] == ["train", "", "", ""]
    assert parts["mstar_scenes/17.png"] == "train" and parts["mstar_scenes/15.png"] == "val"
    assert [replace(r, split=s.split) for r, s in zip(cleaned, records)] == records, "nothing but the split may change"
    assert not (audit(cleaned, manifest, folder, progress=False).part == "train").any()


def test_training_on_a_test_image_itself_is_a_leak(study):
    folder, manifest, records = study
    wrong = [replace(r, split="train") if r.image_id == "mstar/9.png" else r for r in records]
    overlaps = audit(wrong, manifest, folder, progress=False)
    assert ("mstar/9.png", "mstar/9.png", "exact") in set(zip(overlaps.image_id, overlaps.other_id, overlaps.kind))


def test_groups_join_chains_of_copies():
    copies = pd.DataFrame({"image_id": ["a", "b", "d"], "other_id": ["b", "c", "e"]})
    assert copy_groups(["a", "b", "c", "d", "e", "f"], copies) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "d", "f": "f"}


def real(data: Path, folder: Path, name: str) -> list[Record]:
    manifest = load_manifest()
    release = prepare(manifest.datasets[name], data, folder)
    return list(read_dataset(name, manifest.datasets[name], release, folder / name, Problems()))    # boxes past the image are clipped, as in a study


@pytest.fixture(scope="module")
def mstar(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    folder = tmp_path_factory.mktemp("real")
    return folder, real(real_data, folder, "mstar")


def test_sample_is_mstar_in_another_guise(real_data, mstar):
    folder, chips = mstar
    sample = real(real_data, folder, "sample")
    chips = [r for r in chips if r.labels[0] in ("2S1", "BMP2") and r.sensor["depression"] in (15, 17)]
    found = find_copies(sample, chips, folder, {"mstar": "none", "sample": "none"}, progress=False)
    by_id = {r.image_id: r for r in sample + chips}
    pairs = [(by_id[a], by_id[b]) for a, b in zip(found.image_id, found.other_id)]
    assert set(found["transform"]) == {"transpose"} and found.score.min() > .9 and found.image_id.is_unique and found.other_id.is_unique
    assert all(a.sensor["depression"] == b.sensor["depression"] and a.labels[0] == b.labels[0].lower() for a, b in pairs), "elevation and class agree"
    assert all(a.sensor["serial"] == b.sensor["serial"] for a, b in pairs if b.sensor["serial"]), "serial agrees where MSTAR names one"
    assert pd.Series([a.sensor["depression"] for a, _ in pairs]).value_counts().to_dict() == {17.0: 101, 15.0: 43}, "and none at 16 degrees"


@pytest.mark.slow
def test_scenes_hold_chips_of_one_depression_each(real_data, mstar):
    folder, chips = mstar
    scenes = real(real_data, folder, "mstar_scenes")[::10]
    soc = load_manifest().evaluations["mstar_soc"]
    trained, tested = evaluation_parts(chips, soc)
    found = find_copies(scenes, trained + tested, folder, {"mstar": "none", "mstar_scenes": "none"}, progress=False)
    by_id = {r.image_id: r for r in scenes + chips}
    assert set(found["transform"]) == {"same"} and set(found.kind) == {"inserted"}
    wrong = {a for a, b in zip(found.image_id, found.other_id) if by_id[b].labels[0] not in {box.label for box in by_id[a].boxes}}
    assert wrong <= {"mstar_scenes/JPEGImages/000391.jpg"}, "its BRDM-2 is a BMP-2: the release is wrong, not the match"
    assert len(found) == sum(len(r.boxes) for r in scenes), "every box"
    angles = found.other_id.map(lambda i: by_id[i].sensor["depression"]).groupby(found.image_id).unique()
    assert angles.map(len).max() == 1 and {a[0] for a in angles} == {15.0, 17.0}, "half of the scenes are made of MSTAR's test chips"
