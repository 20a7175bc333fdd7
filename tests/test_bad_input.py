"""Bad input: lenient, the run goes on and the report counts and names what is wrong; strict, it stops. Nothing is dropped in silence."""
import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sarclip.core.files import unpack
from sarclip.data.formats.atrnet import atrnet_path, write_atrnet
from sarclip.data.formats.au_air import write_au_air
from sarclip.data.formats.box_lines import write_box_lines
from sarclip.data.formats.captions_csv import write_captions_csv
from sarclip.data.formats.class_folders import write_class_folders
from sarclip.data.formats.coco import write_coco
from sarclip.data.formats.common import box_around, make_record
from sarclip.data.formats.dota import dota_path, write_dota
from sarclip.data.formats.fair1m import fair1m_path, write_fair1m
from sarclip.data.formats.fair_csar import fair_csar_path, write_fair_csar
from sarclip.data.formats.hrsc import write_hrsc
from sarclip.data.formats.karpathy import write_karpathy
from sarclip.data.formats.masks import write_masks
from sarclip.data.formats.mstar import mstar_path, write_mstar, write_mstar_jpeg
from sarclip.data.formats.opensarship import opensarship_path, write_opensarship
from sarclip.data.formats.sample import sample_path, write_sample
from sarclip.data.formats.sarlang import write_sarlang
from sarclip.data.formats.sarsim import sarsim_path, write_sarsim
from sarclip.data.formats.stanford import stanford_path, write_stanford
from sarclip.data.formats.visdrone import visdrone_path, write_visdrone
from sarclip.data.formats.voc import write_voc
from sarclip.data.manifest import Dataset, Release, load_manifest
from sarclip.core.problems import Problems
from sarclip.data.pixels import check_images
from sarclip.data.readers import READERS
from sarclip.data.reading import read_dataset
from sarclip.core.records import Box, Record

GRAY = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
SHIP, CAR = Box("ship", 1, 2, 9, 8), Box("car", 10, 1, 15, 11)
TILTED = box_around("ship", [(2., 1.), (9., 3.), (8., 6.), (1., 4.)])
MANIFEST = load_manifest()
SCENE = "S1A_IW_GRDH_1SDV_20150823T221233_20150823T221258_007396_00A2CA_54D0"


def item(path: str, **facts) -> tuple[Record, np.ndarray]: return make_record("tiny", path, **facts), GRAY
def items(paths: list[str], **facts) -> list[tuple[Record, np.ndarray]]: return [item(path, **facts) for path in paths]


# every format: three sound images as its writer writes them
DATASETS: dict[str, Callable[[Path], None]] = {
    "coco": lambda root: write_coco(root, [(make_record("tiny", f"JPEGImages/{split}/{name}.png", size=(16, 12), task="det", boxes=(SHIP, CAR), split=split), GRAY)
                                           for split, name in (("train", "a"), ("train", "b"), ("val", "c"))]),
    "voc": lambda root: write_voc(root, items([f"JPEGImages/{n}.png" for n in "abc"], size=(16, 12), task="det", boxes=(SHIP, CAR))),
    "dota": lambda root: write_dota(root, items([dota_path("train", n) for n in "abc"], size=(16, 12), task="det", boxes=(TILTED,), split="train")),
    "fair_csar": lambda root: write_fair_csar(root, items([fair_csar_path("train", n) for n in "abc"], size=(16, 12), task="det", boxes=(TILTED,), split="train")),
    "atrnet": lambda root: write_atrnet(root, [item(atrnet_path("train", "car", "KU", "HH", 15, 30 * i, i), labels=("car",), boxes=(CAR,), split="train",
                                                       sensor={"band": "KU", "polarisation": "HH", "depression": 15., "azimuth": 30. * i}) for i in range(3)]),
    "masks": lambda root: write_masks(root, items([f"Train/Urban/images_png/{n}.png" for n in "abc"], size=(16, 12), task="det", boxes=(Box("water", 1., 2., 9., 8.),), split="train")),
    "karpathy": lambda root: write_karpathy(root, items([f"images/{n}.png" for n in "abc"], task="cap", captions=("A port .", "Many ships ."), split="train")),
    "sarlang": lambda root: write_sarlang(root, items([f"SARimages/{n}.png" for n in "abc"], task="cap", captions=("A city, seen by radar.", "Two ships."), split="train")),
    "mstar": lambda root: write_mstar(root, items([mstar_path("2S1", "", 17, f"HB0000{n}.000") for n in "123"], labels=("2S1",), sensor={"serial": "b01", "depression": 17.})),
    "mstar_jpeg": lambda root: write_mstar_jpeg(root, items([mstar_path("2S1", "", 17, f"HB0000{n}.000.jpeg") for n in "123"], labels=("2S1",), sensor={"serial": "", "depression": 17.})),
    "sample": lambda root: write_sample(root, [item(sample_path("2s1", "measured", 15, a, "b01"), labels=("2s1",),
                                                       sensor={"depression": 15., "azimuth": float(a), "serial": "b01", "mode": "measured", "scaling": "qpm"}) for a in (1, 2, 3)]),
    "sarsim": lambda root: write_sarsim(root, [item(sarsim_path("tank", "tank1", "grass", 17, a), labels=("tank",),
                                                       sensor={"depression": 17., "azimuth": float(a), "serial": "tank1", "background": "grass", "mode": "synthetic"}) for a in (0, 5, 10)]),
    "opensarship": lambda root: write_opensarship(root, items([opensarship_path(SCENE, "Cargo", x, 5, "VV") for x in (1, 2, 3)], pixels="tiff", labels=("Cargo",),
                                                              sensor={"product": SCENE, "polarisation": "VV", "angle_incidence": 31.5, "serial": "413338000", "length": 190.})),
    "class_folders": lambda root: write_class_folders(root, items([f"tank/{n}.png" for n in "abc"], labels=("tank",))),
    "fair1m": lambda root: write_fair1m(root, items([fair1m_path("train", f"{n}.tif") for n in "123"], pixels="tiff", size=(16, 12), task="det", boxes=(TILTED,), split="train")),
    "visdrone": lambda root: write_visdrone(root, items([visdrone_path("train", f"{n}.png") for n in "abc"], size=(16, 12), task="det", boxes=(CAR,), split="train")),
    "stanford": lambda root: write_stanford(root, [item(stanford_path("little", "video0", n, "png"), size=(16, 12), task="det", boxes=(SHIP, CAR),
                                                           sensor={"scene": "little", "video": "video0", "frame": float(n)}) for n in (0, 30, 60)]),
    "hrsc": lambda root: write_hrsc(root, items([f"FullDataSet/AllImages/{n}.bmp" for n in "123"], size=(16, 12), task="det", boxes=(SHIP,), split="train")),
    "au_air": lambda root: write_au_air(root, items([f"images/{n}.png" for n in "abc"], size=(16, 12), task="det", boxes=(SHIP, CAR))),
    "box_lines": lambda root: write_box_lines(root, items([f"data/Images/{n}.png" for n in "abc"], size=(16, 12), task="det", boxes=(CAR,), split="train")),
    "captions_csv": lambda root: write_captions_csv(root, items([f"{n}.png" for n in "abc"], task="cap", captions=("A port.", "Two ships."))),
}


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[str], Path]:
    "The folder of a small sound dataset of a format."
    def write(reader: str) -> Path:
        DATASETS[reader](tmp_path / "tiny")
        return tmp_path / "tiny"
    return write


def entry(reader: str, **changes) -> tuple[Dataset, Release]:
    "A manifest entry for the small dataset."
    dataset = MANIFEST.datasets["sardet_100k"]
    names = ("ship", "car", "water", "2S1", "2s1", "tank", "Cargo")
    release = dataset.release("generated").model_copy(update={"reader": reader} | changes)
    return dataset.model_copy(update={"name": "tiny", "classes": {name: name for name in names}}), release


def read(reader: str, root: Path, problems: Problems | None = None, **changes) -> list[Record]:
    return list(check_images(read_dataset("tiny", *entry(reader, **changes), root, problems), root, problems))


# how a file is damaged
def cut(path: Path) -> None: path.write_bytes(path.read_bytes()[:-20])
def empty(path: Path) -> None: path.write_bytes(b"")
def remove(path: Path) -> None: path.unlink()
def page(path: Path) -> None: path.write_bytes(b"<html><body>404</body></html>")
def link(path: Path) -> None: path.unlink(), path.symlink_to("/etc/hostname")
def link_to_twin(path: Path) -> None: path.rename(path.parents[3] / path.name), path.symlink_to(path.parents[3] / path.name)
def swap(old: str, new: str, encoding: str = "utf-8") -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = path.read_bytes()
        assert old.encode() in text
        path.write_bytes(text.replace(old.encode(), new.encode(encoding), 1))
    return damage
def whole(encoding: str) -> Callable[[Path], None]: return lambda path: path.write_bytes(path.read_text().encode(encoding))
def entity_bomb(path: Path) -> None: path.write_text('<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>' + path.read_text().replace("ship", "&c;").partition("?>")[2])
def coco(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    return damage
def bbox(*values: float) -> Callable[[Path], None]: return coco(lambda c: c["annotations"][0].update(bbox=list(values)))
def file_name(name: object) -> Callable[[Path], None]: return coco(lambda c: c["images"][0].update(file_name=name))


def other_ship_at_the_first_ones_place(path: Path) -> None:
    text = path.read_text()
    ship = text[text.index("<ship>"):text.index("</ship>") + 7]
    path.write_text(text.replace("</ShipList>", ship.replace("413338000", "413338001") + "</ShipList>"))


TRAIN, XML, IMAGE, CSV = "Annotations/train.json", "Annotations/a.xml", "JPEGImages/a.png", "Text/caption/Caption-training.csv"
CHIP, SHIPS = "MSTAR_PUBLIC_MIXED_TARGETS_CD2/17_DEG/COL2/SCENE1/2S1/HB00001.000", f"{SCENE}/Ship.xml"
CASES = [    # format, file, damage, kind reported, images and boxes or captions left
    ("coco", TRAIN, cut, "truncated_json", 1, 2),
    ("coco", TRAIN, empty, "empty_file", 1, 2),
    ("coco", TRAIN, swap("ship", "Brücke", "latin-1"), "bad_encoding", 1, 2),
    ("coco", TRAIN, lambda path: path.write_text("[" * 100_000), "truncated_json", 1, 2),
    ("coco", TRAIN, coco(lambda c: c.pop("annotations")), "missing_key", 1, 2),
    ("coco", TRAIN, coco(lambda c: c.update(images={"a": 1})), "wrong_type", 1, 2),
    ("coco", TRAIN, link, "unsafe_link", 1, 2),
    ("coco", TRAIN, bbox(10, 2, 30, 5), "box_clipped", 3, 6),
    ("coco", TRAIN, bbox(-3, 2, 7, 5), "box_clipped", 3, 6),
    ("coco", TRAIN, bbox(40, 2, 30, 5), "box_outside", 3, 5),
    ("coco", TRAIN, bbox(9, 8, -4, -3), "box_inverted", 2, 4),
    ("coco", TRAIN, bbox(9, 8, 0, 3), "box_empty", 2, 4),
    ("coco", TRAIN, bbox(9, 8, float("nan"), 3), "box_not_finite", 2, 4),
    ("coco", TRAIN, bbox(9, 8, 3), "bad_box", 2, 4),
    ("coco", TRAIN, bbox(9, 8, 3), "boxes_lost", 2, 4),
    ("coco", TRAIN, bbox(9, 8, 10**400, 3), "bad_box", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["annotations"][0].update(image_id=[1])), "bad_box", 3, 5),
    ("coco", TRAIN, coco(lambda c: c["annotations"][0].update(image_id=99)), "unknown_image", 3, 5),
    ("coco", TRAIN, coco(lambda c: c["annotations"][0].update(category_id=99)), "unknown_class", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["categories"][1].update(name="submarine")), "boxes_lost", 1, 2),
    ("coco", TRAIN, coco(lambda c: c["categories"][1].update(name=["ship"])), "wrong_type", 1, 2),
    ("coco", TRAIN, coco(lambda c: c["images"].append(dict(c["images"][0], id=7))), "duplicate_name", 3, 6),
    ("coco", TRAIN, coco(lambda c: c["images"].append(dict(c["images"][0], file_name="z.png"))), "duplicate_id", 3, 6),
    ("coco", TRAIN, coco(lambda c: c["images"][0].update(width=0)), "bad_size", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["images"][0].update(width="wide")), "wrong_type", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["images"][0].update(width=32)), "wrong_size", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["images"][0].update(width=17)), "size_corrected", 3, 6),
    ("coco", TRAIN, coco(lambda c: c["images"][0].update(width=10**19)), "wrong_size", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["annotations"][0].update(bbox="1234")), "bad_box", 2, 4),    # was read as 1, 2, 3, 4
    ("coco", TRAIN, coco(lambda c: c["annotations"][0].update(bbox=["1", 2, 3, 4])), "bad_box", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["annotations"][0].update(bbox=[True, 2, 3, 4])), "bad_box", 2, 4),
    ("coco", TRAIN, coco(lambda c: c["categories"].append(dict(c["categories"][0], name="car"))), "duplicate_id", 1, 2),
    ("coco", TRAIN, file_name("../../../secret.png"), "unsafe_path", 2, 4),
    ("coco", TRAIN, file_name("/etc/hostname"), "unsafe_path", 2, 4),
    ("coco", TRAIN, file_name("..\\secret.png"), "unsafe_path", 2, 4),
    ("coco", TRAIN, file_name("\ud800.png"), "bad_encoding", 2, 4),
    ("coco", TRAIN, file_name(7), "wrong_type", 2, 4),
    ("coco", "JPEGImages/train/a.png", remove, "missing_image", 2, 4),
    ("coco", "JPEGImages/train/a.png", empty, "empty_file", 2, 4),
    ("coco", "JPEGImages/train/a.png", page, "wrong_magic", 2, 4),
    ("coco", "JPEGImages/train/a.png", link, "unsafe_link", 2, 4),
    ("coco", "JPEGImages/train/a.png", link_to_twin, "unsafe_link", 2, 4),
    ("voc", XML, cut, "truncated_xml", 2, 4),
    ("voc", XML, empty, "empty_file", 2, 4),
    ("voc", XML, entity_bomb, "unsafe_xml", 2, 4),
    ("voc", XML, whole("utf-16"), "unsafe_xml", 2, 4),
    ("voc", XML, swap("ship", "Brücke", "latin-1"), "bad_encoding", 2, 4),
    ("voc", XML, swap("<filename>a.png", "<filename>b.png"), "duplicate_name", 2, 4),
    ("voc", XML, swap("<filename>a.png", "<filename>../../secret.png"), "unsafe_path", 2, 4),
    ("voc", XML, swap("<name>ship", "<name>submarine"), "unknown_class", 2, 4),
    ("voc", XML, swap("<xmax>9", "<xmax>90"), "box_clipped", 3, 6),
    ("voc", XML, swap("<xmax>9", "<xmax>1"), "box_empty", 2, 4),
    ("voc", XML, swap("<xmax>9", "<xmax>-9"), "box_inverted", 2, 4),
    ("voc", XML, swap("<xmax>9", "<xmax>-9"), "boxes_lost", 2, 4),
    ("voc", XML, swap("<xmax>9", "<xmax>1e999"), "not_a_number", 2, 4),
    ("voc", XML, swap("<xmax>9", "<xmax>8O"), "not_a_number", 2, 4),    # a letter O, was read as 8
    ("voc", XML, swap("<xmax>9", "<xmax>7,5"), "not_a_number", 2, 4),    # was read as 7
    ("voc", XML, swap("<xmax>9", "<xmax>1_1"), "not_a_number", 2, 4),    # was read as 11
    ("voc", XML, swap("<width>16", "<width>16.5"), "not_a_number", 2, 4),
    ("voc", XML, swap("<width>16", "<width>61"), "wrong_size", 2, 4),
    ("voc", XML, link, "unsafe_link", 2, 4),
    ("voc", IMAGE, page, "wrong_magic", 2, 4),
    ("dota", "train/labelTxt/a.txt", swap("ship", "Br ücke", "latin-1"), "bad_encoding", 2, 2),
    ("dota", "train/labelTxt/a.txt", swap(" ship 0", ""), "bad_line", 2, 2),
    ("dota", "train/labelTxt/a.txt", swap("2 1 9 3", "nan 1 9 3"), "box_not_finite", 2, 2),
    ("dota", "train/labelTxt/a.txt", swap("2 1 9 3", "2 1 nan 3"), "box_not_finite", 2, 2),    # min and max pass over this one
    ("dota", "train/labelTxt/a.txt", lambda path: path.write_text("gsd:inf\n" + path.read_text()), "not_a_number", 2, 2),
    ("dota", "train/labelTxt/a.txt", swap("ship", "submarine"), "unknown_class", 2, 2),
    ("dota", "train/labelTxt/a.txt", empty, "empty_file", 2, 2),    # was read as an image without objects
    ("dota", "train/labelTxt/a.txt", swap("2 1 9 3", "2 1 1_0 3"), "bad_line", 2, 2),
    ("dota", "train/images/a.png", remove, "missing_image", 2, 2),
    ("dota", "train/images/a.png", empty, "unreadable_image", 2, 2),    # its header tells the size
    ("fair_csar", "SL/train/METAXmls/a.xml", entity_bomb, "unsafe_xml", 2, 2),
    ("fair_csar", "SL/train/METAXmls/a.xml", swap("<x3>8", "<x3>far"), "not_a_number", 2, 2),
    ("fair_csar", "SL/train/METAXmls/a.xml", swap("<x2>9", "<x2>99"), "box_clipped", 3, 3),
    ("fair_csar", "SL/train/PNGImages/a.png", empty, "empty_file", 2, 2),
    ("atrnet", "SOC_40classes/train/car/KU_HH_15_0_0.xml", cut, "truncated_xml", 2, 2),
    ("atrnet", "SOC_40classes/train/car/KU_HH_15_0_0.tif", page, "wrong_magic", 2, 2),
    ("masks", "Train/Urban/masks_png/a.png", lambda path: path.write_bytes(path.read_bytes()[:60]), "unreadable_image", 2, 2),
    ("masks", "Train/Urban/masks_png/a.png", page, "unreadable_image", 2, 2),
    ("masks", "Train/Urban/images_png/a.png", remove, "missing_image", 2, 2),
    ("karpathy", "dataset_tiny.json", swap('"raw": "A port ."', '"raw": " "'), "empty_caption", 3, 5),
    ("karpathy", "dataset_tiny.json", swap('"raw": "A port ."', '"raw": "\\ud800"'), "bad_encoding", 3, 5),
    ("karpathy", "dataset_tiny.json", swap('"raw": "A port ."', '"raw": 5'), "wrong_type", 2, 4),
    ("karpathy", "dataset_tiny.json", swap('"split": "train"', '"split": "dev"'), "unknown_split", 2, 4),
    ("karpathy", "dataset_tiny.json", swap("a.png", "../a.png"), "unsafe_path", 2, 4),
    ("karpathy", "dataset_tiny.json", swap("a.png", "b.png"), "duplicate_name", 2, 4),
    ("karpathy", "images/a.png", empty, "empty_file", 2, 4),
    ("sarlang", CSV, swap("Two ships.", "Two ships, at sea."), "stray_columns", 3, 5),
    ("sarlang", CSV, swap("Two ships.", "Zwei Schiffe vor der Brücke.", "latin-1"), "bad_encoding", 3, 5),
    ("sarlang", CSV, swap("Two ships.", " "), "empty_caption", 3, 5),
    ("sarlang", CSV, swap("Two ships.", '"Two" ships.'), "truncated_csv", 3, 5),
    ("sarlang", CSV, swap("Two ships.", '"Two ships.'), "truncated_csv", 3, 5),    # the quotation mark is never closed
    ("sarlang", CSV, swap("image,caption", 'image,"caption'), "truncated_csv", 0, 0),
    ("sarlang", CSV, swap("caption", "text"), "missing_column", 0, 0),
    ("sarlang", "SARimages/a.png", remove, "missing_image", 2, 4),
    ("mstar", CHIP, page, "wrong_magic", 2, 0),
    ("mstar", CHIP, lambda path: path.write_bytes(path.read_bytes()[:60]), "truncated_file", 2, 0),
    ("mstar", CHIP, swap("NumberOfRows= 12", "NumberOfRows= xx"), "not_a_number", 2, 0),
    ("mstar", CHIP, swap("NumberOfRows= 12", "NumberOfRows= 10"), "wrong_length", 2, 0),    # gave a picture of shifted lines
    ("mstar", CHIP, swap("NumberOfRows= 12", "NumberOfRows= 1_2"), "not_a_number", 2, 0),
    ("mstar", CHIP, cut, "wrong_length", 2, 0),
    ("mstar", CHIP, lambda path: path.write_bytes(path.read_bytes() + bytes(20)), "wrong_length", 2, 0),
    ("mstar_jpeg", CHIP + ".jpeg", page, "wrong_magic", 2, 0),
    ("sample", "png_images/qpm/real/2s1/2s1_real_A_elevDeg_015_azCenter_001_22_serial_b01.png", lambda path: path.rename(path.with_name("holiday.png")), "strange_name", 2, 0),
    ("sarsim", "tank/tank1_grass_dep17_az000.png", lambda path: path.rename(path.with_name("holiday.png")), "strange_name", 2, 0),
    ("sarsim", "tank/tank1_grass_dep17_az000.png", empty, "empty_file", 2, 0),
    ("opensarship", SHIPS, swap("<Center_x>1<", "<Center_x>9<"), "unknown_ship", 2, 0),
    ("opensarship", SHIPS, other_ship_at_the_first_ones_place, "two_ships", 2, 0),    # the last one's facts went to both
    ("opensarship", f"{SCENE}/Patch_Uint8/Visual_Cargo_x1_y5_vv.tif", empty, "empty_file", 2, 0),
    ("class_folders", "tank/a.png", lambda path: (path.parents[1] / "wine").mkdir() or path.rename(path.parents[1] / "wine" / "a.png"), "unknown_class", 2, 0),
    ("class_folders", "tank/a.png", lambda path: path.rename(path.parents[1] / "a.png"), "strange_name", 2, 0),
    ("class_folders", "tank/a.png", lambda path: os.rename(path, os.fsencode(path.parent) + b"/\xff.png"), "bad_encoding", 2, 0),
    ("class_folders", "tank/a.png", link, "unsafe_link", 2, 0),
    ("fair1m", "train/labelXml/1.xml", cut, "truncated_xml", 2, 2),
    ("fair1m", "train/labelXml/1.xml", swap("9,3", "nan,3"), "box_not_finite", 2, 2),
    ("fair1m", "train/images/1.tif", page, "wrong_magic", 2, 2),
    ("visdrone", "VisDrone2019-DET-train/annotations/a.txt", swap(",4,0,0", ",4,0"), "bad_line", 2, 2),
    ("visdrone", "VisDrone2019-DET-train/annotations/a.txt", lambda path: path.write_bytes(b"\xff"), "bad_encoding", 2, 2),
    ("stanford", "annotations/little/video0/annotations.txt", lambda path: path.write_bytes(b"\xff"), "bad_encoding", 0, 0),
    ("stanford", "annotations/little/video0/annotations.txt", swap('"ship"', "ship"), "bad_line", 0, 0),
    ("stanford", "frames/little/video0/000000.png", lambda path: path.rename(path.with_name("30.png")), "duplicate_name", 2, 4),
    ("stanford", "frames/little/video0/000000.png", lambda path: path.rename(path.with_name("holiday.png")), "strange_name", 2, 4),
    ("stanford", "frames/little/video0/000000.png", link, "unsafe_link", 2, 4),
    ("hrsc", "FullDataSet/Annotations/1.xml", swap("<box_xmax>9", "<box_xmax>-9"), "boxes_lost", 2, 2),
    ("visdrone", "VisDrone2019-DET-train/annotations/a.txt", empty, "empty_file", 2, 2),
    ("stanford", "annotations/little/video0/annotations.txt", empty, "empty_file", 0, 0),
    ("hrsc", "FullDataSet/Annotations/1.xml", swap("<Img_SizeWidth>16", "<Img_SizeWidth>160"), "wrong_size", 2, 2),
    ("hrsc", "ImageSets/train.txt", lambda path: path.with_name("test.txt").write_text("2\n"), "two_splits", 3, 3),
    ("fair1m", "train/labelXml/1.xml", swap("<width>16", "<width>160"), "wrong_size", 2, 2),
    ("hrsc", "FullDataSet/Annotations/1.xml", entity_bomb, "unsafe_xml", 2, 2),
    ("au_air", "annotations.json", swap('"ship"', "7"), "wrong_type", 0, 0),
    ("au_air", "annotations.json", coco(lambda c: c["annotations"][0]["bbox"][0].update(left=10**400)), "bad_box", 2, 4),
    ("au_air", "annotations.json", coco(lambda c: c["annotations"][0]["bbox"][0].update(left="1")), "bad_box", 2, 4),
    ("au_air", "annotations.json", coco(lambda c: c["annotations"][0].update({"image_height": 12.5})), "not_a_number", 2, 4),
    ("au_air", "annotations.json", coco(lambda c: c["annotations"][0].update({"image_height": 21})), "wrong_size", 2, 4),
    ("au_air", "annotations.json", coco(lambda c: c["annotations"][0]["bbox"][0].update({"class": 9})), "unknown_class", 2, 4),
    ("box_lines", "data/Annotations/a.txt", swap("10 1", "ten 1"), "not_a_number", 2, 2),
    ("box_lines", "data/Annotations/a.txt", swap("10 1", "nan 1"), "box_not_finite", 2, 2),
    ("captions_csv", "captions.csv", swap("Two ships.", '"Two ships.'), "truncated_csv", 3, 5),
    ("captions_csv", "captions.csv", swap("Two ships.", "Two ships, at sea."), "stray_columns", 3, 5),
]


def test_every_format_is_here(): assert set(DATASETS) == set(READERS)


@pytest.mark.parametrize("reader", DATASETS)
def test_sound_data_has_no_problems(tiny, reader):
    problems = Problems()
    assert len(read(reader, tiny(reader), problems)) == 3 and not list(problems) and problems.counts().empty


@pytest.mark.parametrize("reader, file, damage, kind, images, parts", CASES, ids=[f"{n:02}-{reader}-{kind}" for n, (reader, *_, kind, _, _) in enumerate(CASES)])
def test_reported_or_stopped(tiny, tmp_path, reader, file, damage, kind, images, parts):
    root, problems = tiny(reader), Problems()
    damage(root / file)
    left = read(reader, root, problems)
    assert kind in problems.counts().kind.tolist(), list(problems)
    assert len(left) == images and sum(len(r.boxes) + len(r.captions) for r in left) == parts
    for r in left: assert all(0 <= b.x0 < b.x1 <= 16 and 0 <= b.y0 < b.y1 <= 12 for b in r.boxes)
    for p in problems: assert p.dataset == "tiny" and p.where and p.what and str(tmp_path) not in p.what.replace(f"leads to {tmp_path}", "")
    problems.write_json(tmp_path / "problems.json")
    assert len(json.loads((tmp_path / "problems.json").read_text())["problems"]) == problems.counts().n.sum() == len(list(problems))
    with pytest.raises((ValueError, FileNotFoundError)) as error: read(reader, root)
    sentence = str(error.value)
    assert "\n" not in sentence.strip() and any(Path(p.where.partition(",")[0]).stem in sentence for p in problems), sentence


def test_whole_files_of_captions_in_another_encoding(tiny):
    """Latin-1 loses the rows that need it, UTF-16 the file; a byte-order mark does no harm."""
    root = tiny("sarlang")
    file, text = root / CSV, (root / CSV).read_text()
    for encoding, rows, kinds in (("utf-8-sig", 6, []), ("latin-1", 6, []), ("utf-16", 0, ["bad_encoding", "no_images"])):
        problems = Problems()
        file.write_bytes(text.encode(encoding))
        assert sum(len(r.captions) for r in read("sarlang", root, problems)) == rows and [p.kind for p in problems] == kinds


def test_broken_scene_counts_its_chips(tiny):
    root, problems = tiny("opensarship"), Problems()
    shutil.copytree(root / SCENE, root / SCENE.replace("54D0", "54D1"))
    entity_bomb(root / SHIPS)
    assert len(read("opensarship", root, problems)) == 3
    assert [(p.kind, p.where) for p in problems] == [("unsafe_xml", SCENE)] and "it is the key to 3 chips; left out" in next(iter(problems)).what


def test_folders_that_lead_elsewhere_or_in_a_circle(tiny):
    root, problems = tiny("class_folders"), Problems()
    (root / "tank" / "circle").symlink_to(root)
    (root / "bin").symlink_to("/usr/bin")
    assert len(read("class_folders", root, problems)) == 3 and {p.where for p in problems} == {"tank/circle", "bin"}
    with pytest.raises(ValueError, match="bin: is a link to /usr/bin"): read("class_folders", root)


def test_link_to_the_dataset_itself_is_followed(tiny):
    root = tiny("coco")
    path = root / "JPEGImages/train/a.png"
    path.rename(root / "JPEGImages/kept.png")
    path.symlink_to(root / "JPEGImages/kept.png")
    assert len(read("coco", root)) == 3
    shutil.move(root, root.with_name("disk"))    # the dataset's folder may be a link: whoever runs the study made it
    root.symlink_to(root.with_name("disk"))
    path.unlink(), path.symlink_to("../kept.png")
    assert len(read("coco", root)) == 3


def test_missing_images_and_a_wrong_count(tiny):
    root, problems = tiny("class_folders"), Problems()
    (root / "tank/a.png").unlink()
    assert len(read("class_folders", root, problems, images=3)) == 2
    assert [(p.kind, p.dropped) for p in problems] == [("wrong_count", False)] and "gave 2 images, expected 3" in next(iter(problems)).what
    with pytest.raises(ValueError, match="gave 2 images, expected 3"): read("class_folders", root, images=3)


def test_nothing_left_is_reported_too(tiny):
    root, problems = tiny("voc"), Problems()
    for path in (root / "Annotations").iterdir(): entity_bomb(path)
    assert read("voc", root, problems) == [] and Counter(p.kind for p in problems) == {"unsafe_xml": 3, "no_images": 1}


@pytest.mark.parametrize("reader", DATASETS)
def test_any_damaged_byte_is_survived(tiny, tmp_path, reader):
    """Whatever a byte of an annotation becomes: no other error, and no image lost without a word."""
    root, rng = tiny(reader), np.random.default_rng(0)
    files = [p for p in root.rglob("*") if p.is_file() and (p.suffix in (".json", ".xml", ".csv", ".txt", ".000") or "masks_png" in p.parts)]
    for _ in range(60 if files else 0):
        path = files[rng.integers(len(files))]
        sound = path.read_bytes()
        damaged = bytearray(sound)
        for place in rng.integers(len(damaged), size=rng.integers(1, 4)): damaged[place] = rng.choice(list(b'"{}[]<>&,;\n\0 9-ae\xff'))
        path.write_bytes(damaged)
        problems = Problems()
        assert len(read(reader, root, problems)) == 3 or list(problems), bytes(damaged)
        path.write_bytes(sound)


def tar_of(path: Path, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Path:
    with tarfile.open(path, "w") as tar:
        for member, how in (("good.txt", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(member)
            info.type, info.linkname, info.size = how, target, 3 if how == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"abc") if how == tarfile.REGTYPE else None)
    return path


def zip_of(path: Path, name: str, link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", "abc")
        info = zipfile.ZipInfo(name)
        if link: info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/hostname" if link else "abc")
    return path


@pytest.mark.parametrize("make", [
    lambda p: tar_of(p / "a.tar", "../evil.txt"), lambda p: tar_of(p / "a.tar", "/tmp/evil.txt"), lambda p: tar_of(p / "a.tar", "deep/../../evil.txt"),
    lambda p: tar_of(p / "a.tar", "evil", tarfile.SYMTYPE, "/etc"), lambda p: tar_of(p / "a.tar", "evil", tarfile.LNKTYPE, "../../x"), lambda p: tar_of(p / "a.tar", "evil", tarfile.FIFOTYPE),
    lambda p: zip_of(p / "a.zip", "../evil.txt"), lambda p: zip_of(p / "a.zip", "..\\evil.txt"), lambda p: zip_of(p / "a.zip", "/evil.txt"), lambda p: zip_of(p / "a.zip", "C:/evil.txt"), lambda p: zip_of(p / "a.zip", "evil", link=True),
], ids=["tar-up", "tar-absolute", "tar-deep", "tar-symlink", "tar-hardlink", "tar-pipe", "zip-up", "zip-backslash", "zip-absolute", "zip-drive", "zip-link"])
def test_archives_that_reach_out_are_refused_whole(tmp_path, make):
    archive = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=rf"{archive.name} holds .*evil.* nothing was unpacked|damaged or unsafe"): unpack(archive, tmp_path / "in" / "out")
    assert [p for p in sorted(tmp_path.rglob("*")) if p.name != "in"] == before and not list((tmp_path / "in").iterdir()) and not Path("/tmp/evil.txt").exists()


def test_archives_that_are_too_large_or_cut(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive: archive.writestr("zeros", bytes(10_000_000))
    with pytest.raises(ValueError, match="bomb.zip expands to more than 1,000,000 bytes"): unpack(tmp_path / "bomb.zip", tmp_path / "out", max_bytes=1_000_000)
    cut(tmp_path / "bomb.zip")
    with pytest.raises(ValueError, match="bomb.zip"): unpack(tmp_path / "bomb.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_compressed_archive_with_a_changed_byte_is_refused(tmp_path, compress):
    """Wherever the byte is: never other content than was packed."""
    content, rng = np.random.default_rng(0).bytes(30_000), np.random.default_rng(1)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.bin")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    sound = compress((tmp_path / "a.tar").read_bytes())
    (tmp_path / "sound.tgz").write_bytes(sound)
    assert unpack(tmp_path / "sound.tgz", tmp_path / "out") == 1 and (tmp_path / "out/a.bin").read_bytes() == content
    for n, place in enumerate([*rng.integers(20, len(sound), 40), len(sound) - 8, len(sound) - 1]):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / "a.tgz").write_bytes(damaged)
        with pytest.raises(ValueError, match="a.tgz"): unpack(tmp_path / "a.tgz", tmp_path / "bad")
        assert not (tmp_path / "bad").exists()


def test_a_tar_with_a_damaged_header_is_not_taken_for_its_first_half(tmp_path):
    archive = tar_of(tmp_path / "a.tar", "second.txt")
    damaged = bytearray(archive.read_bytes())
    damaged[damaged.index(b"second.txt")] ^= 1
    archive.write_bytes(damaged)
    with pytest.raises(ValueError, match="a.tar is damaged.*bad checksum where a member"): unpack(archive, tmp_path / "out")


def test_a_zip_with_a_password_is_refused_by_name(tmp_path):
    raw = bytearray(zip_of(tmp_path / "a.zip", "b.txt").read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = -1
        while (place := raw.find(signature, place + 1)) >= 0: raw[place + flags] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(ValueError, match="a.zip .*password"): unpack(tmp_path / "a.zip", tmp_path / "out")


def test_an_image_that_lost_its_only_object_is_not_said_to_be_empty(tiny):
    root, problems = tiny("hrsc"), Problems()
    swap("<box_xmax>9", "<box_xmax>-9")(root / "FullDataSet/Annotations/1.xml")
    assert [len(r.boxes) for r in read("hrsc", root, problems)] == [1, 1] and [p.kind for p in problems] == ["box_inverted", "boxes_lost"]
    shutil.rmtree(root)
    root, problems = tiny("hrsc"), Problems()
    swap("<box_xmax>9", "<box_xmax>-1")(root / "FullDataSet/Annotations/1.xml"), swap("<box_xmin>1", "<box_xmin>-9")(root / "FullDataSet/Annotations/1.xml")
    assert [len(r.boxes) for r in read("hrsc", root, problems)] == [0, 1, 1] and [p.kind for p in problems] == ["box_outside"]    # what the image shows has no such object


def test_an_open_quotation_mark_costs_its_row_alone(tiny):
    root, problems = tiny("captions_csv"), Problems()
    table = root / "captions.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], 'a.png,"never closed', *lines[2:], 'c.png,"A ""wide"", long\nport."']) + "\n")
    assert [c for r in read("captions_csv", root, problems) for c in r.captions] == ["Two ships.", "A port.", "Two ships.", "A port.", "Two ships.", 'A "wide", long\nport.']
    assert [(p.kind, p.where) for p in problems] == [("truncated_csv", "captions.csv, line 2")]


def test_a_box_that_is_clipped_keeps_its_polygon(tiny):
    root, problems = tiny("dota"), Problems()
    swap("9 3", "19 3")(root / "train/labelTxt/a.txt")
    box = next(r for r in read("dota", root, problems) if r.path.endswith("a.png")).boxes[0]
    assert (box.x0, box.x1) == (1, 16) and box.polygon[1] == (19, 3)
    assert dataclasses.replace(box, x1=19) == box_around("ship", list(box.polygon)) and next(iter(problems)).what.endswith("clipped")
