"""What an annotation says, worked out without the project: XML by minidom, JSON by `json`, text by hand. Each gives the image's path →
(size or None, boxes as (label, corners…), captions) for what it can make out, and nothing for what it cannot; of an image that is described
more than once, each description."""
import csv
import json
import re
import xml.dom.minidom
from pathlib import Path

Said = list[tuple[str, tuple[tuple | None, list, list]]]
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def number(text: str) -> float:
    if not NUMBER.fullmatch(text.strip(" \t\r\n")): raise ValueError(text)
    return float(text)


def each(files, read) -> Said:
    "Read what can be read."
    said: Said = []
    for file in sorted(files):
        try: said += read(file)
        except Exception: continue    # whatever is wrong: the oracle does not know, so the project must not either
    return said


def tag(node, name: str) -> str:
    found = node.getElementsByTagName(name)[0]
    return "".join(child.data for child in found.childNodes if child.nodeType in (child.TEXT_NODE, child.CDATA_SECTION_NODE)).strip()
def size_of(node, width: str = "width", height: str = "height") -> tuple: return number(tag(node, width)), number(tag(node, height))
def around(points: list) -> list: return [min(p[0] for p in points), min(p[1] for p in points), max(p[0] for p in points), max(p[1] for p in points)]


def voc(root: Path) -> Said:
    def read(file):
        tree = xml.dom.minidom.parse(str(file))
        ends = [[number(tag(o.getElementsByTagName("bndbox")[0], end)) for end in ("xmin", "ymin", "xmax", "ymax")] for o in tree.getElementsByTagName("object")]
        boxes = [(tag(o, "name"), x0 - 1, y0 - 1, x1, y1) for o, (x0, y0, x1, y1) in zip(tree.getElementsByTagName("object"), ends)]
        return [(f"JPEGImages/{tag(tree, 'filename')}", (size_of(tree), boxes, []))]
    return each((root / "Annotations").glob("*.xml"), read)

def hrsc(root: Path) -> Said:
    def read(file):
        tree = xml.dom.minidom.parse(str(file))
        boxes = [(tag(o, "Class_ID"), *(number(tag(o, f"box_{end}")) for end in ("xmin", "ymin", "xmax", "ymax"))) for o in tree.getElementsByTagName("HRSC_Object")]
        return [(f"FullDataSet/AllImages/{tag(tree, 'Img_FileName')}.{tag(tree, 'Img_FileFmt')}", (size_of(tree, "Img_SizeWidth", "Img_SizeHeight"), boxes, []))]
    return each((root / "FullDataSet/Annotations").glob("*.xml"), read)

def fair1m(root: Path) -> Said:
    def read(file):
        tree, boxes = xml.dom.minidom.parse(str(file)), []
        for item in tree.getElementsByTagName("object"):
            points = [tuple(map(number, p.firstChild.data.split(","))) for p in item.getElementsByTagName("points")[0].getElementsByTagName("point")]
            boxes.append((tag(item, "name"), *around(points)))
        return [(f"train/images/{tag(tree, 'filename')}", (size_of(tree), boxes, []))]
    return each((root / "train/labelXml").glob("*.xml"), read)

def fair_csar(root: Path) -> Said:
    def read(file):
        tree, boxes = xml.dom.minidom.parse(str(file)), []
        for item in {id(n.parentNode): n.parentNode for n in tree.getElementsByTagName("subCategory")}.values():
            boxes.append((tag(item, "subCategory"), *around([(number(tag(item, f"x{i}")), number(tag(item, f"y{i}"))) for i in (1, 2, 3, 4)])))
        return [(f"SL/train/PNGImages/{file.stem}.png", (size_of(tree), boxes, []))]
    return each((root / "SL/train/METAXmls").glob("*.xml"), read)

def atrnet(root: Path) -> Said:
    def read(file):
        tree = xml.dom.minidom.parse(str(file))
        boxes = [(tag(o, "type"), *(number(tag(o, end)) for end in ("xmin", "ymin", "xmax", "ymax"))) for o in tree.getElementsByTagName("object")]
        return [(file.with_suffix(".tif").relative_to(root).as_posix(), (size_of(tree), boxes, []))]
    return each(root.rglob("*.xml"), read)

def dota(root: Path) -> Said:
    def read(file):
        boxes = []
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            if not line.strip() or line.startswith(("gsd:", "imagesource:")): continue
            words = line.split()
            points = [number(w) for w in words[:8]]
            boxes.append((words[8], *around(list(zip(points[::2], points[1::2])))))
        return [(f"train/images/{file.stem}.png", (None, boxes, []))]
    return each((root / "train/labelTxt").glob("*.txt"), read)

def visdrone(root: Path) -> Said:
    names = "pedestrian people bicycle car van truck tricycle awning-tricycle bus motor others".split()
    def read(file):
        boxes = []
        for line in file.read_text(encoding="utf-8-sig").split("\n"):
            if not line.strip(): continue
            left, top, width, height, _, category, *_ = [number(w) for w in line.strip().rstrip(",").split(",")[:6]]
            if category: boxes.append((names[int(category) - 1], left, top, left + width, top + height))
        return [(f"VisDrone2019-DET-train/images/{file.stem}.png", (None, boxes, []))]
    return each((root / "VisDrone2019-DET-train/annotations").glob("*.txt"), read)

def box_lines(root: Path) -> Said:
    def read(file):
        boxes = []
        for line in file.read_text(encoding="utf-8-sig").split("\n"):
            if not line.strip(): continue
            *ends, label = re.split(r"[,\s]+", line.strip().rstrip(","))
            boxes.append(({"1": "car"}[label], *map(number, ends)))
        return [(f"data/Images/{file.stem}.png", (None, boxes, []))]
    return each((root / "data/Annotations").glob("*.txt"), read)

def stanford(root: Path) -> Said:
    images = {int(p.stem): p for p in (root / "frames/little/video0").glob("*.png")}
    found = {frame: [] for frame in images}
    for line in (root / "annotations/little/video0/annotations.txt").read_text(encoding="utf-8-sig").split("\n"):
        if not line.strip(): continue
        words = line.strip().split(" ", 9)
        if int(words[5]) in found and words[6] == "0": found[int(words[5])].append((re.match(r'"([^"]+)"', words[9])[1], *map(number, words[1:5])))
    return [(images[frame].relative_to(root).as_posix(), (None, boxes, [])) for frame, boxes in found.items()]

def real(value) -> float:
    "A JSON number; they are doubles, the integers too."
    if type(value) not in (int, float): raise ValueError(value)
    return float(value)

def coco(root: Path) -> Said:
    def read(file):
        content = json.loads(file.read_bytes())
        names, said = {c["id"]: c["name"] for c in content["categories"]}, []
        for image in content["images"]:
            try:
                boxes = [(names[n["category_id"]], *(a := [real(v) for v in n["bbox"]])[:2], a[0] + a[2], a[1] + a[3]) for n in content["annotations"] if n.get("image_id") == image["id"]]
                said.append((f"JPEGImages/{file.stem}/{image['file_name']}", ((real(image["width"]), real(image["height"])), boxes, [])))
            except Exception: continue
        return said
    return each((root / "Annotations").glob("*.json"), read)

def au_air(root: Path) -> Said:
    content, said = json.loads((root / "annotations.json").read_bytes()), []
    for frame in content["annotations"]:
        try:
            boxes = [(content["categories"][b["class"]], real(b["left"]), real(b["top"]), b["left"] + real(b["width"]), b["top"] + real(b["height"])) for b in frame["bbox"]]
            size = [frame.get(f"image_{side}:", frame.get(f"image_{side}")) for side in ("width", "height")]
            said.append((f"images/{frame['image_name']}", (None if None in size else tuple(map(real, size)), boxes, [])))
        except Exception: continue
    return said

def karpathy(root: Path) -> Said:
    content, said = json.loads((root / "dataset_tiny.json").read_bytes()), []
    for image in content["images"]:
        try: said.append((f"images/{image['filename']}", (None, [], [s["raw"].strip() for s in image["sentences"]])))
        except Exception: continue
    return said

def masks(root: Path) -> Said:
    import numpy as np
    from PIL import Image
    from scipy.ndimage import find_objects, label
    names = {2: "building", 3: "road", 4: "water", 5: "barren", 6: "forest", 7: "agricultural"}
    def read(file):
        with Image.open(file) as picture: mask = np.array(picture)
        boxes = [(names[n], float(x.start), float(y.start), float(x.stop), float(y.stop)) for n in names for y, x in find_objects(label(mask == n, np.ones((3, 3)))[0])]
        return [(f"Train/Urban/images_png/{file.name}", ((mask.shape[1], mask.shape[0]), boxes, []))]
    return each((root / "Train/Urban/masks_png").glob("*.png"), read)

def _table(file: Path, folder: str, columns: tuple[str, str]) -> Said:
    "Rows whose image and caption stand in one row of the table as `csv` reads all of it, or that line alone."
    text = file.read_bytes().decode("utf-8-sig", "replace")
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    header = next(csv.reader([re.split(r"[\r\n]", text, maxsplit=1)[0]], delimiter=delimiter))
    at = [header.index(c) for c in columns]
    captions: dict[str, list] = {}
    lines = text.splitlines(True)
    seen = set()
    for start in range(1, len(lines)):
        for stop in range(start + 1, min(start + 4, len(lines)) + 1):    # a caption may hold line ends
            try: rows = list(csv.reader(lines[start:stop], delimiter=delimiter, strict=True))
            except csv.Error: continue
            for row in rows:
                if len(row) == len(header): seen.add((row[at[0]].strip(), row[at[1]].strip()))
    for name, caption in seen:
        path = "/".join(filter(None, (folder, *(p for p in name.replace("\\", "/").split("/") if p not in ("", ".")))) if not folder else (folder, name.replace("\\", "/").rsplit("/", 1)[-1]))
        captions.setdefault(path, []).append(caption)
    return [(path, (None, [], found)) for path, found in captions.items()]

def sarlang(root: Path) -> Said: return _table(root / "Text/caption/Caption-training.csv", "SARimages", ("image", "caption"))
def captions_csv(root: Path) -> Said: return _table(root / "captions.csv", "", ("image", "caption"))


ORACLES = {f.__name__: f for f in (voc, hrsc, fair1m, fair_csar, atrnet, dota, visdrone, box_lines, stanford, coco, au_air, karpathy, masks, sarlang, captions_csv)}
