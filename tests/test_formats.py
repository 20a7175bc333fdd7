"""Every format twice: what a writer wrote is what its reader returns, on inputs nobody would think of; and a sample
written by hand after the owner's documentation is read as the owner means it."""
import dataclasses
import io
import math
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from PIL import Image

from sarclip.data.formats.atrnet import atrnet_path, read_atrnet, write_atrnet
from sarclip.data.formats.au_air import read_au_air, write_au_air
from sarclip.data.formats.box_lines import read_box_lines, write_box_lines
from sarclip.data.formats.captions_csv import read_captions_csv, write_captions_csv
from sarclip.data.formats.class_folders import read_class_folders, write_class_folders
from sarclip.data.formats.coco import read_coco, write_coco
from sarclip.data.formats.common import box_around, make_record
from sarclip.data.formats.dota import dota_path, read_dota, write_dota
from sarclip.data.formats.fair1m import fair1m_path, read_fair1m, write_fair1m
from sarclip.data.formats.fair_csar import fair_csar_path, read_fair_csar, write_fair_csar
from sarclip.data.formats.hrsc import read_hrsc, write_hrsc
from sarclip.data.formats.karpathy import read_karpathy, write_karpathy
from sarclip.data.formats.masks import LOVEDA, boxes_of_mask, read_masks, write_masks
from sarclip.data.formats.mstar import mstar_path, read_mstar, read_mstar_jpeg, read_phoenix, write_mstar, write_mstar_jpeg, write_phoenix
from sarclip.data.formats.opensarship import opensarship_path, read_opensarship, write_opensarship
from sarclip.data.formats.sample import read_sample, sample_path, write_sample
from sarclip.data.formats.sarlang import read_sarlang, write_sarlang
from sarclip.data.formats.sarsim import read_sarsim, sarsim_path, write_sarsim
from sarclip.data.formats.stanford import read_stanford, write_stanford
from sarclip.data.formats.tiff import read_tiff, write_tiff
from sarclip.data.formats.visdrone import CLASSES as VISDRONE
from sarclip.data.formats.visdrone import read_visdrone, visdrone_path, write_visdrone
from sarclip.data.formats.voc import read_voc, write_voc
from sarclip.data.imaging import picture
from sarclip.data.pixels import load_pixels
from sarclip.data.readers import READERS
from sarclip.core.records import Box, Record

# ---- what is drawn ----

some = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SIZE = (16, 12)
PIXELS = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[::-1])

# anything printable: accents, Chinese, emoji, spaces, & < > " ' and the like; no control characters, surrogates or line separators
printable = st.characters(exclude_categories=("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"))
labels = st.text(printable, min_size=1, max_size=20).map(str.strip).filter(bool)
texts = st.text(st.one_of(printable, st.sampled_from("\n\t\",;'<&")), min_size=1, max_size=60).map(str.strip).filter(bool)
names = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"), exclude_characters="/\\:{}"), min_size=1, max_size=20) \
    .map(str.strip).filter(lambda name: name and not name.startswith("."))
stems = st.lists(names, min_size=1, max_size=3, unique_by=str.casefold)
splits = st.sampled_from(["train", "val", "test"])

coordinates = st.integers(-4000, 4000).map(lambda n: n / 16)
corners = st.lists(st.tuples(coordinates, coordinates), min_size=4, max_size=4)

def oriented(names_: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Box, ...]]:
    return st.lists(st.builds(box_around, names_, corners), max_size=4).map(tuple)

def upright(names_: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Box, ...]]:
    return oriented(names_).map(lambda boxes: tuple(dataclasses.replace(b, polygon=None) for b in boxes))

def same(write: Callable, read: Callable, records: list[Record], options: dict | None = None, pixels: np.ndarray = PIXELS) -> None:
    "Write the records, read them back, and compare them and their pixels."
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), [(record, pixels) for record in records], options)
        found = sorted(read(Path(folder), "x", options), key=lambda r: r.image_id)
        assert found == sorted(records, key=lambda r: r.image_id)
        for record in found: assert np.array_equal(load_pixels(Path(folder), record), pixels)

# ---- what was written is what is read ----

@some
@given(st.data(), stems)
def test_coco(data, stems):
    records = [make_record("x", f"JPEGImages/{split}/{stem}.png", size=SIZE, task="det", boxes=data.draw(upright(labels)), split=split)
               for stem in stems for split in [data.draw(splits)]]
    same(write_coco, read_coco, records)

@some
@given(st.data(), stems, st.sampled_from([{}, {"first_pixel": 0}, {"classes": ["a", "ship", "sehr große <Brücke> & Co"]}]))
def test_voc(data, stems, options):
    known = st.sampled_from(options["classes"]) if "classes" in options else labels
    same(write_voc, read_voc, [make_record("x", f"JPEGImages/{stem}.png", size=SIZE, task="det", boxes=data.draw(upright(known))) for stem in stems], options)

@some
@given(st.data(), stems, splits, st.one_of(st.none(), st.floats(.01, 100)))
def test_dota(data, stems, split, gsd):
    words = labels.map(lambda text: "-".join(text.split()))
    sensor = {} if gsd is None else {"resolution": gsd}
    same(write_dota, read_dota, [make_record("x", dota_path(split, stem), size=SIZE, task="det", boxes=data.draw(oriented(words)), sensor=sensor, split=split) for stem in stems])

@some
@given(st.data(), stems, splits, st.floats(0, 90))
def test_fair_csar(data, stems, split, angle):
    records = []
    for stem in stems:
        boxes = data.draw(oriented(labels))
        sensor = {"polarisation": "HH", "resolution": 1.0, "imaging_mode": "SL"} | ({"angle_incidence": angle} if boxes else {})    # the angle stands with the targets
        records.append(make_record("x", fair_csar_path(split, stem), size=SIZE, task="det", boxes=boxes, sensor=sensor, split=split))
    same(write_fair_csar, read_fair_csar, records)

@some
@given(st.data(), stems, st.sampled_from(["", "train", "val", "test"]), st.sampled_from([".tif", ".png"]))
def test_fair1m(data, stems, split, ending):
    same(write_fair1m, read_fair1m, [make_record("x", fair1m_path(split, stem + ending), pixels="tiff" if ending == ".tif" else "image", size=SIZE, task="det",
                                                 boxes=data.draw(oriented(labels)), split=split) for stem in stems])

@some
@given(st.data(), stems, splits)
def test_visdrone(data, stems, split):
    same(write_visdrone, read_visdrone, [make_record("x", visdrone_path(split, f"{stem}.png"), size=SIZE, task="det",
                                                     boxes=data.draw(upright(st.sampled_from(VISDRONE))), split=split) for stem in stems])

@some
@given(st.data(), names, names, st.lists(st.integers(0, 10**6 - 1), min_size=1, max_size=3, unique=True))
def test_stanford(data, scene, video, frames):
    plain = labels.map(lambda text: text.replace('"', "'"))
    same(write_stanford, read_stanford, [make_record("x", f"frames/{scene}/{video}/{frame:06d}.png", size=SIZE, task="det", boxes=data.draw(upright(plain)),
                                                     sensor={"scene": scene, "video": video, "frame": float(frame)}) for frame in frames])

@some
@given(st.data(), stems, st.sampled_from(["bmp", "png"]))
def test_hrsc(data, stems, kind):
    same(write_hrsc, read_hrsc, [make_record("x", f"FullDataSet/AllImages/{stem}.{kind}", size=SIZE, task="det", boxes=data.draw(upright(labels)), split=data.draw(splits)) for stem in stems])

@some
@given(st.data(), stems)
def test_au_air(data, stems):
    same(write_au_air, read_au_air, [make_record("x", f"images/{stem}.png", size=SIZE, task="det", boxes=data.draw(upright(labels))) for stem in stems])

LEVIR = {"image": "{folder}{name}.png", "boxes": "{folder}{name}.txt", "columns": "label x0 y0 width height -", "classes": {1: "airplane", 2: "ship"}}

@some
@given(st.data(), stems, st.sampled_from([("data/Images/", None), ("imageWithLabel/", LEVIR)]))
def test_box_lines(data, stems, layout):
    folder, options = layout
    known = st.sampled_from(["car"] if options is None else ["airplane", "ship"])
    same(write_box_lines, read_box_lines, [make_record("x", f"{folder}{stem}.png", size=SIZE, task="det", boxes=data.draw(upright(known)), split=data.draw(splits)) for stem in stems], options)

@some
@given(st.integers(0, 2**32 - 1), splits)
def test_masks(seed, split):
    "Boxes of any mask, painted as rectangles, either come back or are refused; they never change in silence."
    mask = np.random.default_rng(seed).choice([1, 1, 1, 2, 3, 7], (3, 4)).repeat(4, 0).repeat(4, 1)
    record = make_record("x", f"{split.title()}/Urban/images_png/a.png", size=SIZE, task="det", boxes=boxes_of_mask(mask, LOVEDA), split=split)
    try: same(write_masks, read_masks, [record])
    except ValueError as error: assert "cannot hold" in str(error)

@some
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from(sorted(LOVEDA))), max_size=4, unique_by=lambda cell: cell[:2]), labels, st.booleans())
def test_masks_that_hold_their_boxes(cells, label, coloured):
    classes = {f"#{n:02x}40ff" if coloured else n: f"{label} {n}" for n in LOVEDA}
    of = dict(zip(LOVEDA, classes.values()))
    boxes = tuple(Box(of[n], 4. * x, 4. * y, 4. * x + 3, 4. * y + 3) for x, y, n in sorted(cells, key=lambda c: (c[2], c[1], c[0])))    # a pixel apart
    same(write_masks, read_masks, [make_record("x", "images_png/a.png", size=SIZE, task="det", boxes=boxes)], {"classes": classes})

@some
@given(st.data(), stems)
def test_karpathy(data, stems):
    same(write_karpathy, read_karpathy, [make_record("x", f"images/{stem}.png", task="cap", captions=data.draw(st.lists(texts, min_size=1, max_size=5).map(tuple)),
                                                     split=data.draw(splits)) for stem in stems])

@some
@given(st.data(), stems)
def test_sarlang(data, stems):
    same(write_sarlang, read_sarlang, [make_record("x", f"SARimages/{stem}.png", task="cap", captions=data.draw(st.lists(texts, min_size=1, max_size=5).map(tuple)),
                                                   split=data.draw(splits)) for stem in stems])

@some
@given(st.data(), stems, st.sampled_from([{}, {"separator": "\t", "image_column": "filepath", "caption_column": "title"},
                                          {"captions": "text/{split}.csv", "images": "images", "strip": "/data/set/"}]))
def test_captions_csv(data, stems, options):
    same(write_captions_csv, read_captions_csv, [make_record("x", f"images/{stem}.png", task="cap", captions=data.draw(st.lists(texts, min_size=1, max_size=5).map(tuple)),
                                                             split=data.draw(splits)) for stem in stems], options)

@some
@given(stems, names.filter(lambda name: name.lower() not in ("train", "val", "test")), st.sampled_from(["", "train", "val", "test"]))
def test_class_folders(stems, label, split):
    same(write_class_folders, read_class_folders, [make_record("x", "/".join(filter(None, (split, label, f"{stem}.png"))), labels=(label,), split=split) for stem in stems])

@some
@given(st.sampled_from([("2S1", "b01"), ("BMP2", "9563"), ("T72", "A04"), ("T72", "S7"), ("ZSU_23_4", "d08")]), st.sampled_from([15, 17, 30]),
       st.floats(0, 360), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_mstar(target, depression, azimuth, height, width, seed):
    label, serial = target
    sensor = {"azimuth": azimuth, "depression": float(depression), "serial": serial, "polarisation": "HH", "resolution": 0.3047}
    record = make_record("x", mstar_path(label, serial, depression, "HB00001.000"), pixels="phoenix", size=(width, height), labels=(label,), sensor=sensor)
    same(write_mstar, read_mstar, [record], pixels=np.random.default_rng(seed).rayleigh(size=(height, width)).astype(np.float32))

@some
@given(st.sampled_from([("2S1", ""), ("BMP2", "9563"), ("T72", "A04")]), st.sampled_from([15, 17, 30]))
def test_mstar_jpeg(target, depression):
    label, serial = target
    record = make_record("x", mstar_path(label, serial, depression, "HB00001.000.jpeg"), labels=(label,), sensor={"serial": serial, "depression": float(depression)})
    with tempfile.TemporaryDirectory() as folder:
        write_mstar_jpeg(Path(folder), [(record, PIXELS)])
        assert list(read_mstar_jpeg(Path(folder), "x")) == [record]
        assert np.abs(load_pixels(Path(folder), record).astype(int) - PIXELS).max() < 16    # JPEG loses a little

@some
@given(names.map(lambda name: name.replace("_", "-")), st.sampled_from(["measured", "synthetic"]), st.integers(0, 90), st.integers(0, 359),
       st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), st.sampled_from(["qpm", "decibel"]), st.sampled_from(["png", "mat"]))
def test_sample(label, mode, elevation, azimuth, serial, scaling, kind):
    sensor = {"depression": float(elevation), "azimuth": float(azimuth), "serial": serial, "mode": mode} | ({"scaling": scaling} if kind == "png" else {})
    record = make_record("x", sample_path(label, mode, elevation, azimuth, serial, scaling, kind), pixels="image" if kind == "png" else "mat:complex_img", labels=(label,), sensor=sensor)
    pixels = PIXELS if kind == "png" else PIXELS * np.exp(1j * PIXELS)
    same(write_sample, lambda root, dataset, options: read_sample(root, dataset, {"kind": kind}), [record], pixels=pixels)

@some
@given(names, names, names.map(lambda name: name.replace("_", "-")), st.integers(0, 90), st.integers(0, 359))
def test_sarsim(label, model, background, depression, azimuth):
    sensor = {"depression": float(depression), "azimuth": float(azimuth), "serial": model, "background": background, "mode": "synthetic"}
    same(write_sarsim, read_sarsim, [make_record("x", sarsim_path(label, model, background, depression, azimuth), labels=(label,), sensor=sensor)])

SINGLE = "S1A_IW_SLC__1SSV_20150217T204257_20150217T204324_004668_005C34_2DC9"
DUAL = "S1A_IW_GRDH_1SDV_20150823T221233_20150823T221258_007396_00A2CA_54D0"

@some
@given(st.lists(st.tuples(st.sampled_from([(SINGLE, ("VV",)), (DUAL, ("VV", "VH"))]), names, st.integers(0, 99999), st.integers(0, 99999), st.floats(15, 60),
                          st.integers(10**8, 10**9 - 1), st.one_of(st.none(), st.floats(1, 400)), st.one_of(st.none(), labels.filter(lambda text: text != "NA"))),
                min_size=1, max_size=3, unique_by=lambda ship: ship[2:4]))
def test_opensarship(ships):
    records = []
    for (product, channels), label, x, y, angle, mmsi, length, wording in ships:
        facts = {"angle_incidence": angle, "serial": str(mmsi)} | ({} if length is None else {"length": length}) | ({} if wording is None else {"type": wording})
        records += [make_record("x", opensarship_path(product, label, x, y, p), pixels="tiff", labels=(label,), sensor={"product": product, "polarisation": p} | facts) for p in channels]
    same(write_opensarship, read_opensarship, records)

@some
@given(st.data(), st.lists(st.tuples(names, splits, st.sampled_from(["X", "KU"]), st.sampled_from(["HH", "HV", "VH", "VV"]), st.integers(0, 60), st.integers(0, 359)), min_size=1, max_size=3),
       st.floats(.1, 30), st.floats(.01, 10), labels)
def test_atrnet(data, chips, length, resolution, scene):
    records = []
    for number, (label, split, band, polarisation, depression, azimuth) in enumerate(chips):
        sensor = {"band": band, "polarisation": polarisation, "depression": float(depression), "azimuth": float(azimuth)}
        path, boxes = atrnet_path(split, label, band, polarisation, depression, azimuth, number), data.draw(upright(labels))
        facts = dict(size=SIZE, task="cls+det", boxes=boxes, sensor=sensor | {"length": length, "resolution": resolution, "scene": scene}) if boxes else dict(sensor=sensor)    # no boxes, no XML
        records.append(make_record("x", path, pixels="tiff", labels=(label,), split=split, **facts))
    same(write_atrnet, read_atrnet, records)

@some
@given(st.sampled_from(["u1", "u2", "i2", "i4", "f4", "f8", "c8", "c16"]), st.integers(1, 6), st.integers(5, 9), st.sampled_from([(), (2,), (3,), (4,)]),
       st.one_of(st.none(), st.integers(-3, 3)), st.integers(0, 2**32 - 1))
def test_tiff(dtype, height, width, bands, nodata, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(-3, 4, (height, width, *bands)).astype(dtype)
    assume(not (dtype[0] == "c" and nodata is not None))
    with tempfile.TemporaryDirectory() as folder:
        write_tiff(Path(folder) / "a.tif", pixels, nodata)
        found = read_tiff(Path(folder) / "a.tif")
    missing = np.zeros(pixels.shape, bool) if nodata is None else pixels == nodata
    assert np.array_equal(np.isnan(found), missing) and np.array_equal(found[~missing], pixels[~missing])
    assert found.dtype == pixels.dtype or missing.any()

def test_nothing_is_written_for_a_refused_record(tmp_path):
    record = make_record("x", "JPEGImages/train/a.png", size=SIZE, task="det", boxes=(Box("a", 0, 0, 1, 1),), split="val")
    with pytest.raises(ValueError, match="does not lie in"): write_coco(tmp_path / "new", [(record, PIXELS)])
    assert not (tmp_path / "new").exists()

# ---- samples by hand, each after its owner's documentation; nothing here comes from our writers ----

def save(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root

def png(width: int, height: int, rows: list[bytes] | None = None) -> bytes:
    "A gray PNG after its specification: signature, IHDR, IDAT, IEND."
    def chunk(kind: bytes, data: bytes) -> bytes: return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = rows or [bytes(width)] * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b"")

def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 90).save(buffer, "JPEG")
    return buffer.getvalue()

def phoenix(magnitude: np.ndarray, phase: np.ndarray, dtype: str = ">f4", native: bytes = b"") -> bytes:
    "An MSTAR file after the collection's README: an empty line, text header, perhaps a native header, magnitudes, phases."
    body = np.stack([magnitude, phase]).astype(dtype).tobytes()
    text = ("\n[PhoenixHeaderVer01.04]\nPhoenixHeaderLength= {:05d}\nPhoenixSigSize= {:07d}\nPhoenixSigNum= 0001\nPhoenixHeaderCallingSequence= mstar\n"
            f"native_header_length= {len(native)}\nFilename= HB03333.015\nParentScene= hb14936\nNumberOfColumns= {magnitude.shape[1]}\nNumberOfRows= {magnitude.shape[0]}\n"
            "TargetType= t72_tank\nTargetSerNum= 132\nTargetAz= 320.785278\nDesiredDepression= 17\nPolarization= HH\nRangeResolution= 0.304700\n[EndofPhoenixHeader]\n")
    length = len(text.format(0, 0))
    return text.format(length, length + len(native) + len(body)).encode() + native + body

MAGNITUDE = np.array([[.25, 1, 2], [3, 4, 5.5]])
PHASE = np.array([[0, .5, -.5], [3.14, -3.14, 1]])
DISC = "MSTAR_PUBLIC_TARGETS_CHIPS_T72_BMP2_BTR70_SLICY/TARGETS/TRAIN/17_DEG/T72/SN_132"

def test_mstar_by_hand(tmp_path):
    save(tmp_path, {f"{DISC}/HB03333.015": phoenix(MAGNITUDE, PHASE), f"{DISC}/HB03333.JPG.README": "not a chip",
                    "MSTAR_PUBLIC_MIXED_TARGETS_CD1/15_DEG/COL1/SCENE1/BTR_60/HB05684.003": phoenix(MAGNITUDE, PHASE, native=b"\x07" * 512)})
    mixed, single = sorted(read_mstar(tmp_path, "mstar"), key=lambda r: r.path)
    assert (single.labels, single.size) == (("T72",), (3, 2))
    assert single.sensor == {"azimuth": 320.785278, "depression": 17., "resolution": 0.3047, "polarisation": "HH", "serial": "132"}
    assert mixed.labels == ("BTR_60",) and mixed.sensor["depression"] == 15.        # the folder, not the header
    for record in (mixed, single): assert np.array_equal(load_pixels(tmp_path, record), MAGNITUDE.astype(np.float32))

def test_mstar_with_16_bits_by_hand(tmp_path):
    save(tmp_path, {"T72/HB1.000": phoenix(MAGNITUDE * 100, np.array([[0, 1024, 2048], [3072, 1, 2]]), ">u2")})
    _, magnitude, phase = read_phoenix(tmp_path / "T72/HB1.000")
    assert np.array_equal(magnitude, (MAGNITUDE * 100).astype(np.uint16)) and math.isclose(phase[0, 1], math.pi / 2, rel_tol=1e-6)

def test_mstar_jpeg_by_hand(tmp_path):
    save(tmp_path, {f"{DISC}/HB03333.015.jpeg": jpeg(), "MSTAR_PUBLIC_T_72_VARIANTS_CD1/15_DEG/COL2/SCENE1/A04/HB15267.017.jpeg": jpeg()})
    first, second = read_mstar_jpeg(tmp_path, "mstar")
    assert (first.labels, first.sensor) == (("T72",), {"serial": "132", "depression": 17.}) and (second.labels, second.sensor["serial"]) == (("T72",), "A04")

def test_sample_by_hand(tmp_path):
    from scipy.io import savemat
    chip = MAGNITUDE * np.exp(1j * PHASE)
    mat = io.BytesIO()
    savemat(mat, {"complex_img": chip, "complex_img_unshifted": chip, "aligned": 1, "azimuth": 10.95, "elevation": 15.02, "bandwidth": 591e6, "center_freq": 9.6e9, "target_name": "2s1",
                  "range_pixel_spacing": .2021, "range_resolution": .3047, "xrange_pixel_spacing": .2031, "xrange_resolution": .3047, "taylor_weights": [-35, 4], "explanation": "text"})
    save(tmp_path, {"png_images/qpm/real/2s1/2s1_real_A_elevDeg_015_azCenter_011_22_serial_b01.png": png(8, 8),
                    "png_images/decibel/synth/zsu23/zsu23_synth_A_elevDeg_017_azCenter_080_08_serial_d08.png": png(8, 8),
                    "mat_files/real/2s1/2s1_real_A_elevDeg_015_azCenter_011_22_serial_b01.mat": mat.getvalue()})
    synthetic, measured = sorted(read_sample(tmp_path, "sample"), key=lambda r: r.path)
    assert measured.labels == ("2s1",) and measured.sensor == {"depression": 15., "azimuth": 11., "serial": "b01", "mode": "measured", "scaling": "qpm"}
    assert synthetic.labels == ("zsu23",) and synthetic.sensor == {"depression": 17., "azimuth": 80., "serial": "d08", "mode": "synthetic", "scaling": "decibel"}
    (complex_,) = read_sample(tmp_path, "sample", {"kind": "mat"})
    assert np.array_equal(load_pixels(tmp_path, complex_), chip)

def test_sarsim_by_hand(tmp_path):
    "The owner publishes no names, so a release brings its own pattern."
    save(tmp_path, {"Bulldozer/model 2/grass/inc35_az005.png": png(8, 8)})
    (record,) = read_sarsim(tmp_path, "sarsim", {"pattern": r"(?P<label>[^/]+)/(?P<serial>[^/]+)/(?P<background>[^/]+)/inc(?P<depression>\d+)_az(?P<azimuth>\d+)\.png"})
    assert record.labels == ("Bulldozer",)
    assert record.sensor == {"depression": 35., "azimuth": 5., "serial": "model 2", "background": "grass", "mode": "synthetic"}

SHIP_XML = r"""<?xml version="1.0" encoding="UTF-8"?>
<ShipList><ship>
<SARShipInformation><Head_x>1667</Head_x><Head_y>6966</Head_y><Tail_x>1679</Tail_x><Tail_y>6980</Tail_y><UpperLeft_x>1664</UpperLeft_x><LowerRight_y>6983</LowerRight_y>
<Center_x>1673</Center_x><Center_y>6973</Center_y><Center_latitude>31.1</Center_latitude><Center_longitude>121.9</Center_longitude><Length_Width_Ratio>5.9</Length_Width_Ratio>
<Manual_Length>{manual}</Manual_Length><Incidence>31.795192</Incidence><Elevation>NaN</Elevation></SARShipInformation>
<AISShipInformation><MMSI>413338000</MMSI><IMO>9400000</IMO><Name>H&amp;EGH</Name><Ship_Type>70</Ship_Type><Elaborated_type>Cargo</Elaborated_type><Length>{length}</Length><Width>32</Width></AISShipInformation>
<MarineTrafficInformation><Length_overall>190.000000</Length_overall><Elaborated_type>{wording}</Elaborated_type></MarineTrafficInformation>
</ship>{end}"""

def test_opensarship_by_hand(tmp_path):
    tiff = io.BytesIO()
    Image.fromarray(PIXELS).save(tiff, "TIFF")
    save(tmp_path, {f"{DUAL}/Ship.xml": SHIP_XML.format(manual=188, length=190, wording="Bulk Carrier", end="</ShipList>"),
                    f"{DUAL}/Patch_Uint8/Visual_Cargo_x1673_y6973_vh.tif": tiff.getvalue(), f"{DUAL}/Patch_RGB/RGB_Cargo_x1673_y6973.tif": b"a plot, not data",
                    f"{SINGLE}(1)/Ship.xml": SHIP_XML.format(manual=188, length=0, wording="NA", end="<\\ShipList>"),        # version 2.0's slip
                    f"{SINGLE}(1)/Patch_Uint8/Visual_Other Type_x1673_y6973.tif": tiff.getvalue()})
    dual, single = read_opensarship(tmp_path, "opensarship")
    assert dual.labels == ("Cargo",) and dual.sensor == {"product": DUAL, "polarisation": "VH", "angle_incidence": 31.795192, "length": 190., "serial": "413338000", "type": "Bulk Carrier"}
    assert single.labels == ("Other Type",) and single.sensor == {"product": SINGLE, "polarisation": "VV", "angle_incidence": 31.795192, "length": 188., "serial": "413338000"}
    assert np.array_equal(load_pixels(tmp_path, dual), PIXELS)

def test_atrnet_by_hand(tmp_path):
    xml = """<?xml version="1.0" encoding="utf-8"?><annotation><source><filename>KU_HH_15_0_253993.tif</filename><format>ground_range_uint8</format></source>
    <size><height>128</height><width>128</width><depth>1</depth></size><objects><object><target_id>13</target_id><category>Car</category><class>Medium_SUV</class><type>Chang'an_CS75_Plus</type>
    <length>4.65m</length><width>1.85m</width><height>1.71m</height><bndbox><xmin>25</xmin><xmax>65</xmax><ymin>26</ymin><ymax>69</ymax></bndbox></object></objects>
    <scene><scene_name>sandstone</scene_name></scene><sensor><band>KU</band><polarization>HH</polarization><range_resolution>0.15m</range_resolution><depression_angle>15°</depression_angle></sensor></annotation>"""
    folder = "SOC_40classes/train/Chang'an_CS75_Plus"
    save(tmp_path, {f"{folder}/KU_HH_15_0_253993.tif": b"", f"{folder}/KU_HH_15_0_253993.xml": xml, "EOC_scene/test/Chery_Arrizo 5/X_VH_30_355_7.tif": b""})
    other, first = read_atrnet(tmp_path, "atrnet_star")
    assert first.labels == ("Chang'an_CS75_Plus",) and first.boxes == (Box("Chang'an_CS75_Plus", 25., 26., 65., 69.),) and first.size == (128, 128) and first.split == "train"
    assert first.sensor == {"band": "KU", "polarisation": "HH", "depression": 15., "azimuth": 0., "length": 4.65, "resolution": 0.15, "scene": "sandstone"}
    assert other.labels == ("Chery_Arrizo 5",) and other.boxes == () and other.split == "test" and other.sensor["azimuth"] == 355.

def test_coco_by_hand(tmp_path):
    "SARDet-100K's fields."
    save(tmp_path, {"Annotations/val.json": """{"info": {"year": 2024}, "licenses": [], "images": [{"id": 0, "file_name": "0000018.png", "width": 512, "height": 384}],
        "categories": [{"supercategory": "none", "id": 0, "name": "ship"}, {"supercategory": "none", "id": 3, "name": "tank"}],
        "annotations": [{"id": 7, "image_id": 0, "category_id": 3, "bbox": [10, 20.5, 30, 40], "area": 1200, "iscrowd": 0, "ignore": 0, "segmentation": [[10, 20.5, 40, 20.5, 40, 60.5, 10, 60.5]]}]}"""})
    (record,) = read_coco(tmp_path, "sardet_100k")
    assert record == make_record("sardet_100k", "JPEGImages/val/0000018.png", size=(512, 384), task="det", boxes=(Box("tank", 10., 20.5, 40., 60.5),), split="val")

def test_voc_by_hand(tmp_path):
    "VOC 2007's spelling: corners count from 1 and belong to the box."
    save(tmp_path, {"Annotations/000103.xml": """<annotation><folder>VOC2007</folder><filename>000103.jpg</filename><source><database>The VOC2007 Database</database></source>
        <size><width>491</width><height>594</height><depth>3</depth></size><segmented>0</segmented><object><name>storage tank</name><pose>Unspecified</pose><truncated>0</truncated>
        <difficult>0</difficult><bndbox><xmin>1</xmin><ymin>37</ymin><xmax>10</xmax><ymax>46</ymax></bndbox></object></annotation>"""})
    (record,) = read_voc(tmp_path, "voc")
    assert record.boxes == (Box("storage tank", 0., 36., 10., 46.),) and record.size == (491, 594) and record.path == "JPEGImages/000103.jpg"

def test_dota_by_hand(tmp_path):
    "DOTA 1.0's header lines and a line as its page prints it."
    save(tmp_path, {"train/images/P0002.png": png(40, 30), "train/labelTxt/P0002.txt": "imagesource:GoogleEarth\ngsd:0.146343590398\n2753 2408 2861 2385 2888 2468 2805 2502 plane 0\n5.0 5 9 5 9 7.5 5 7.5 large-vehicle 1\n",
                    "val/images/P0003.png": png(4, 4), "val/labelTxt/P0003.txt": "imagesource:GoogleEarth\ngsd:null\n"})
    first, second = read_dota(tmp_path, "dota")
    assert first.boxes[0] == box_around("plane", [(2753., 2408.), (2861., 2385.), (2888., 2468.), (2805., 2502.)]) and first.boxes[1].label == "large-vehicle"
    assert first.sensor == {"resolution": 0.146343590398} and first.size == (40, 30) and second.boxes == () and second.sensor == {} and second.split == "val"

def test_fair_csar_by_hand(tmp_path):
    save(tmp_path, {"SL/test/METAXmls/GF3_a.xml": """<meta><satellite>GF3</satellite><imgingMode>SL</imgingMode><nominalResolution>1</nominalResolution><polarizationMode>HH</polarizationMode>
        <width>1024</width><height>1000</height><objects><object><majorCategory>Aircraft</majorCategory><subCategory>Boeing 737</subCategory><incidenceAngle>31.2</incidenceAngle>
        <x1>10</x1><y1>20</y1><x2>50</x2><y2>20</y2><x3>50</x3><y3>30</y3><x4>10</x4><y4>30</y4></object></objects></meta>"""})
    (record,) = read_fair_csar(tmp_path, "fair_csar")
    assert record.boxes == (box_around("Boeing 737", [(10., 20.), (50., 20.), (50., 30.), (10., 30.)]),) and record.path == "SL/test/PNGImages/GF3_a.png"
    assert record.sensor == {"polarisation": "HH", "resolution": 1., "imaging_mode": "SL", "angle_incidence": 31.2} and record.size == (1024, 1000)

def test_fair1m_by_hand(tmp_path):
    save(tmp_path, {"train/labelXml/12.xml": """<?xml version="1.0" encoding="utf-8"?><annotation><source><filename>12.tif</filename><origin>GF2/GF3</origin></source>
        <research><version>1.0</version><provider>FAIR1M</provider></research><size><width>1000</width><height>800</height><depth>3</depth></size>
        <objects><object><coordinate>pixel</coordinate><type>rectangle</type><description>None</description><possibleresult><name>Dry Cargo Ship</name></possibleresult>
        <points><point>10.5,20.0</point><point>50.0,20.0</point><point>50.0,30.0</point><point>10.5,30.0</point><point>10.5,20.0</point></points></object></objects></annotation>"""})
    (record,) = read_fair1m(tmp_path, "fair1m")
    assert record == make_record("fair1m", "train/images/12.tif", pixels="tiff", size=(1000, 800), task="det", split="train",
                                 boxes=(box_around("Dry Cargo Ship", [(10.5, 20.), (50., 20.), (50., 30.), (10.5, 30.)]),))

def test_visdrone_by_hand(tmp_path):
    "Lines as the toolkit describes them: an ignored region, a pedestrian, a motor with a comma at its end."
    save(tmp_path, {"VisDrone2019-DET-val/images/0000001_02999_d_0000005.jpg": jpeg(),
                    "VisDrone2019-DET-val/annotations/0000001_02999_d_0000005.txt": "684,8,273,116,0,0,0,0\n406,119,265,70,1,1,0,2\r\n255,22,119,128,1,10,1,0,\n"})
    (record,) = read_visdrone(tmp_path, "visdrone")
    assert record.boxes == (Box("pedestrian", 406., 119., 671., 189.), Box("motor", 255., 22., 374., 150.)) and record.size == (8, 8) and record.split == "val"

def test_stanford_by_hand(tmp_path):
    "Columns after the dataset's README; a lost object is out of view, the attribute at the end is not ours."
    lines = '0 213 1038 241 1072 10000 1 0 0 "Biker"\n0 2 3 5 7 11187 0 1 1 "Biker"\n17 1 1 4 4 11187 0 0 0 "Golf Cart" "parked"\n17 1 1 4 4 11188 0 0 0 "Golf Cart"\n'
    save(tmp_path, {"annotations/bookstore/video0/annotations.txt": lines, "annotations/bookstore/video0/reference.jpg": jpeg(), "frames/bookstore/video0/11187.jpg": jpeg()})
    (record,) = read_stanford(tmp_path, "stanford")
    assert record.boxes == (Box("Biker", 2., 3., 5., 7.), Box("Golf Cart", 1., 1., 4., 4.)) and record.sensor == {"scene": "bookstore", "video": "video0", "frame": 11187.}

def test_hrsc_by_hand(tmp_path):
    save(tmp_path, {"ImageSets/test.txt": "100000640\r\n100000641\r\n", "FullDataSet/Annotations/100000640.xml": """<HRSC_Image><Img_ID>100000640</Img_ID><Place_ID>100000001</Place_ID>
        <Img_FileName>100000640</Img_FileName><Img_FileFmt>bmp</Img_FileFmt><Img_Resolution>1.07</Img_Resolution><Img_SizeWidth>1138</Img_SizeWidth><Img_SizeHeight>833</Img_SizeHeight>
        <Img_SizeDepth>3</Img_SizeDepth><HRSC_Objects><HRSC_Object><Object_ID>100000640</Object_ID><Class_ID>100000013</Class_ID><truncated>0</truncated><difficult>0</difficult>
        <box_xmin>628</box_xmin><box_ymin>40</box_ymin><box_xmax>815</box_xmax><box_ymax>783</box_ymax><mbox_cx>719.9</mbox_cx><mbox_cy>413.0</mbox_cy><mbox_w>741.9</mbox_w>
        <mbox_h>172.2</mbox_h><mbox_ang>1.55</mbox_ang><header_x>710</header_x><header_y>780</header_y></HRSC_Object></HRSC_Objects></HRSC_Image>"""})
    (record,) = read_hrsc(tmp_path, "hrsc")
    assert record == make_record("hrsc", "FullDataSet/AllImages/100000640.bmp", size=(1138, 833), task="det", boxes=(Box("100000013", 628., 40., 815., 783.),), split="test")

def test_au_air_by_hand(tmp_path):
    "The colon in image_width: is the owner's."
    save(tmp_path, {"annotations.json": """{"info": {}, "licenses": [], "categories": ["Human", "Car"], "annotations": [{"image_name": "frame_1.jpg", "image_width:": 1920.0, "image_height": 1080.0,
        "platform": "Parrot Bebop 2", "time": {"year": 2019}, "altitude": 19921.6, "bbox": [{"top": 163, "left": 1098, "height": 185, "width": 420, "class": 1}]}]}"""})
    (record,) = read_au_air(tmp_path, "au_air")
    assert record == make_record("au_air", "images/frame_1.jpg", size=(1920, 1080), task="det", boxes=(Box("Car", 1098., 163., 1518., 348.),))

def test_box_lines_by_hand(tmp_path):
    "CARPK's text and list."
    save(tmp_path, {"data/Annotations/20160331_NTU_00001.txt": "1042 391 1111 418 1\n985 391 1061 418 1\n", "data/Images/20160331_NTU_00001.png": png(1280, 720),
                    "data/ImageSets/train.txt": "20160331_NTU_00001\n"})
    (record,) = read_box_lines(tmp_path, "carpk")
    assert record.boxes == (Box("car", 1042., 391., 1111., 418.), Box("car", 985., 391., 1061., 418.)) and record.size == (1280, 720) and record.split == "train"

def test_masks_by_hand(tmp_path):
    "LoveDA's numbers: 0 no data, 1 background, 2 building, 3 road."
    save(tmp_path, {"Train/Rural/masks_png/1366.png": png(6, 4, [b"\0\0\1\1\1\1", b"\1\2\2\1\1\3", b"\1\2\2\1\1\3", b"\1\1\1\2\1\3"])})
    (record,) = read_masks(tmp_path, "loveda")
    assert record.path == "Train/Rural/images_png/1366.png" and record.split == "train"
    assert record.boxes == (Box("building", 1., 1., 4., 4.), Box("road", 5., 1., 6., 4.))        # the two pieces of building touch by a corner

def test_karpathy_by_hand(tmp_path):
    "RSICD's fields."
    save(tmp_path, {"dataset_rsicd.json": """{"images": [{"filename": "airport_1.jpg", "imgid": 0, "sentids": [0, 1], "split": "restval", "sentences": [
        {"tokens": ["many", "planes"], "raw": "many planes are parked next to a long building in an airport .", "imgid": 0, "sentid": 0}, {"tokens": [], "raw": "un a\\u00e9roport .", "imgid": 0, "sentid": 1}]}], "dataset": "rsicd"}"""})
    (record,) = read_karpathy(tmp_path, "rsicd")
    assert record == make_record("rsicd", "images/airport_1.jpg", task="cap", captions=("many planes are parked next to a long building in an airport .", "un aéroport ."), split="train")

def test_sarlang_by_hand(tmp_path):
    save(tmp_path, {"Text/caption/Caption-training.csv": "\ufeffimage,caption\r\n/home/me/SARimages/Nice_3.tif,\"A city, with a \"\"port\"\".\"\r\n/home/me/SARimages/Nice_3.tif,Short.\r\n"})
    (record,) = read_sarlang(tmp_path, "sarlang")
    assert record == make_record("sarlang", "SARimages/Nice_3.tif", pixels="tiff", task="cap", captions=('A city, with a "port".', "Short."), split="train")

@pytest.mark.parametrize("table", ["filepath\ttitle\nSAR/a 1.png\tTwo ships, both small.\nSAR/a 1.png\t\"A \"\"port\"\".\"\n", "\ufeffimgpath,caption\r\nSAR/a 1.png,\"Two ships, both small.\"\r\n.\\SAR\\a 1.png,\"A \"\"port\"\".\"\r\n",
                                   "split,caption,image\n,\"Two ships, both small.\",SAR/a 1.png\n\n,\"A \"\"port\"\".\",SAR//a 1.png\n"])
def test_captions_csv_by_hand(tmp_path, table):
    "OpenCLIP's default columns and tabs; SARCLIP's release; columns in any order."
    save(tmp_path, {"captions.csv": table})
    (record,) = read_captions_csv(tmp_path, "x")
    assert record == make_record("x", "SAR/a 1.png", task="cap", captions=("Two ships, both small.", 'A "port".'))

def test_class_folders_by_hand(tmp_path):
    save(tmp_path, {"aGrass/a001.jpg": jpeg(), "train/gParking/g 017.JPG": jpeg(), "README.md": "seven classes"})
    assert [(r.labels, r.split) for r in read_class_folders(tmp_path, "rsscn7")] == [(("aGrass",), ""), (("gParking",), "train")]

def test_every_reader_is_tested_here():
    "A format added to the project is added to this file: once written and read, once by hand."
    source = Path(__file__).read_text()
    for name, reader in READERS.items():
        assert source.count(f"{reader.__name__}(tmp_path") >= 1, f"{name} has no sample by hand"
        assert f"write_{name}" in source, f"{name} has no round trip"

def test_geotiff_with_polarisations_and_no_data_becomes_a_picture(tmp_path):
    "Written by GDAL with the compression that tifffile leaves to it."
    rasterio = pytest.importorskip("rasterio")
    rng = np.random.default_rng(0)
    scene = rng.integers(1, 60000, (2, 40, 40)).astype(np.uint16)
    framed = np.pad(scene, ((0, 0), (12, 12), (12, 12)))
    for name, bands, compress in (("scene", scene, None), ("framed", framed, "lzw")):
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", count=2, height=bands.shape[1], width=bands.shape[2], dtype="uint16", nodata=0, compress=compress,
                           crs="EPSG:32631", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)) as file: file.write(bands)
    inner, whole = (load_pixels(tmp_path, make_record("x", f"{name}.tif", pixels="tiff")) for name in ("scene", "framed"))
    assert inner.shape == (40, 40, 2) and np.isnan(whole).any() and np.array_equal(inner, np.moveaxis(scene, 0, -1))
    for tone in ("linear", "percentile", "db"):
        assert np.array_equal(picture(whole, tone, 40, 40), picture(inner, tone, None, 40))        # the margin takes no part
        assert picture(whole, tone, None, 64)[:12].max() == 0                                      # and is black
    assert np.array_equal(picture(inner, "linear", None, 40), np.rint(255 * (power := np.hypot(*scene.astype(float))) / power.max()).astype(np.uint8))

# ---- another reader of the same files: torchcvnn ----

def test_phoenix_as_torchcvnn_reads_it(tmp_path):
    sample = pytest.importorskip("torchcvnn.datasets.mstar.dataset").MSTARSample
    rng = np.random.default_rng(0)
    for native in (b"", b"\x07" * 512):
        magnitude, phase = rng.rayleigh(size=(54, 55)), rng.uniform(-3, 3, (54, 55))
        save(tmp_path, {"HB03333.015": phoenix(magnitude, phase, native=native)})
        theirs = sample(str(tmp_path / "HB03333.015"))
        header, ours, angle = read_phoenix(tmp_path / "HB03333.015")
        assert header == theirs.header
        assert np.allclose(ours, np.abs(theirs.data[..., 0]), rtol=1e-6) and np.allclose(ours * np.exp(1j * angle), theirs.data[..., 0], atol=1e-5)

def test_torchcvnn_reads_the_phoenix_files_we_write(tmp_path):
    sample = pytest.importorskip("torchcvnn.datasets.mstar.dataset").MSTARSample
    pixels = MAGNITUDE * np.exp(1j * PHASE)
    write_phoenix(tmp_path / "HB03333.015", pixels, {"TargetAz": 12.5})
    theirs = sample(str(tmp_path / "HB03333.015"))
    assert theirs.header["TargetAz"] == "12.5" and np.allclose(theirs.data[..., 0], pixels, atol=1e-6)

def test_sample_as_torchcvnn_reads_it(tmp_path, monkeypatch):
    "It asks for all 2,690 files, so for the test its list has one."
    theirs = pytest.importorskip("torchcvnn.datasets.sample.dataset")
    from scipy.io import savemat
    name = "2s1_real_A_elevDeg_015_azCenter_011_22_serial_b01.mat"
    mat = io.BytesIO()
    chip = MAGNITUDE * np.exp(1j * PHASE)
    keys = ("azimuth", "elevation", "bandwidth", "center_freq", "range_pixel_spacing", "range_resolution", "xrange_pixel_spacing", "xrange_resolution")
    savemat(mat, {"complex_img": chip} | dict.fromkeys(keys, 1.0))
    save(tmp_path, {f"2s1/{name}": mat.getvalue()})
    monkeypatch.setattr(theirs, "filelist", {"real": {"2s1": [name]}, "synth": {"2s1": []}})
    image, label, _ = theirs.SAMPLE(str(tmp_path))[0]
    (record,) = read_sample(tmp_path, "sample", {"kind": "mat"})
    assert np.array_equal(load_pixels(tmp_path, record), image[..., 0]) and record.labels == ("2s1",) and label == 0

def test_atrnet_polarisations_as_torchcvnn_reads_them(tmp_path):
    theirs = pytest.importorskip("torchcvnn.datasets.atrnet_star.dataset").ATRNetSTARSample
    from scipy.io import savemat
    bands = {f"data_{p}": MAGNITUDE * np.exp(1j * (PHASE + i)) for i, p in enumerate(("hh", "hv", "vh", "vv"))}
    savemat(tmp_path / "KU_15_0_1.mat", bands)
    save(tmp_path, {"KU_15_0_1.xml": "<annotation><size><width>3</width><height>2</height></size></annotation>"})
    record = make_record("x", "KU_15_0_1.mat", pixels=f"mat:{','.join(bands)}")
    assert np.array_equal(load_pixels(tmp_path, record), np.stack(list(theirs(str(tmp_path / "KU_15_0_1")).data.values()), -1))
