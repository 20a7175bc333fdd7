"""What is fuzzed: for each format a few sound files, and what becomes of them when one is damaged.

`examine` returns "read" or "reported", raises the project's own error, or raises AssertionError where something was wrong in silence."""
import contextlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import scipy.io
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

import test_bad_input as bad
from conftest import ROOT
from oracles import ORACLES
from sarclip.captions.llm import read_reply
from sarclip.core.files import unpack
from sarclip.core.problems import Problems
from sarclip.core.records import Record
from sarclip.core.parameters import NOTEBOOKS
from sarclip.core.settings import check, load_profile
from sarclip.data.formats.mstar import write_phoenix
from sarclip.data.manifest import load_manifest
from sarclip.data.pixels import load_pixels
from sarclip.data.readers import READERS
from sarclip.evaluation.features import Features, load_features, save_features
from sarclip.models.checkpoint import load_checkpoint, save_checkpoint
from sarclip.models.factory import create
from sarclip.models.weights import load_weights
from sarclip.training.resume import States

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)


@dataclass(frozen=True)
class Subject:
    "Something that is read from files."
    make: Callable[[Path], object]            # writes the sound files
    examine: Callable[[Path], str]            # reads them, damaged or not
    spare: Callable[[str], bool] = lambda name: False    # files that are left alone


# ---- datasets ----

def differs(record: Record, size: tuple | None, boxes: list, captions: list) -> str:
    "In what a record differs from a description; of captions it may have fewer."
    if size is not None and record.size != tuple(size): return f"size {record.size}, the file says {size}"
    found = sorted((b.label, b.x0, b.y0, b.x1, b.y1) for b in record.boxes)
    if len(found) != len(boxes) or not all(f[0] == b[0] and np.allclose(f[1:], b[1:], atol=1e-5, rtol=1e-9, equal_nan=True) for f, b in zip(found, sorted(tuple(b) for b in boxes))):
        return f"boxes {found}, the file says {sorted(boxes)}"
    return "" if set(record.captions) <= set(captions) else f"captions {record.captions}, the file says {captions}"


def dataset(reader: str) -> Subject:
    "A small dataset, from its folder to the pixels of each image."
    def examine(root: Path) -> str:
        raw, problems = Problems(), Problems()
        try: before = list(READERS[reader](root, "tiny", None, raw))
        except (ValueError, OSError): before = []    # judged below, where the whole way is gone
        said = ORACLES[reader](root) if reader in ORACLES and before else []
        for record in before if reader in ORACLES else ():
            if record.task == "cls": continue    # a chip whose annotation is away
            if not all(np.isfinite([b.x0, b.y0, b.x1, b.y1, *np.ravel(b.polygon or ())]).all() for b in record.boxes): continue    # refused below
            differences = [differs(record, *description) for path, description in said if path == record.path]
            assert differences, f"{record.path} was read, and the oracle finds nothing of it"
            assert not all(differences), f"{record.path}: {'; '.join(differences)}"
        records = bad.read(reader, root, problems, images=3)
        for problem in problems: assert problem.dataset == "tiny" and problem.where and problem.what and str(root) not in problem.what.replace(f"leads to {root}", ""), problem
        assert len(records) >= 3 or list(problems), f"{3 - len(records)} of 3 images are gone without a word"
        for record in records:
            for box in record.boxes: assert 0 <= box.x0 < box.x1 and 0 <= box.y0 < box.y1, record
            try: pixels = load_pixels(root, record)
            except (ValueError, OSError) as error:
                assert Path(record.path).name in str(error), f"{error!r} does not name {record.path}"
                problems.found.append(error)
            else:
                if record.size: assert pixels.shape[:2] == record.size[::-1], f"{record.path} is said to be {record.size}, has {pixels.shape}"
                same_pixels(root / record.path, record.pixels, pixels)
        return "reported" if list(problems) else "read"
    return Subject(bad.DATASETS[reader], examine)


# ---- pixels ----

def same_pixels(path: Path, how: str, pixels: np.ndarray) -> None:
    "Compare with GDAL's decoders, or with the format's own bytes."
    data = path.read_bytes()
    if how == "phoenix": return phoenix_agrees(data, pixels)
    if data[:4] == b"\x89PNG": assert png_is_whole(data), f"{path.name} was read, and a checksum in it is wrong"
    if how not in ("image", "tiff") or np.iscomplexobj(pixels): return
    try:
        with rasterio.open(path) as file:
            other = np.moveaxis(file.read(), 0, -1)
            plain = file.nodata is None and not any(c.name in ("palette", "alpha") for c in file.colorinterp) and file.count in (1, 3) and not file.tags().get("TIFFTAG_X")
    except Exception: return    # GDAL is stricter: no witness
    if not plain or other.dtype != pixels.dtype or other.shape[:2] != pixels.shape[:2]: return
    other = other.reshape(pixels.shape) if other.size == pixels.size else other
    if other.shape != pixels.shape: return
    if data[:2] == b"\xff\xd8": return    # a JPEG has no checksum, and what a decoder makes of a damaged one is its own affair
    if not _inverted(path): assert np.array_equal(other, pixels, equal_nan=pixels.dtype.kind == "f"), f"{path.name}: GDAL reads other pixels"


def _inverted(path: Path) -> bool:
    "GDAL leaves white-is-zero pages as they are."
    try:
        with tifffile.TiffFile(path) as file: return file.pages[0].photometric == 0
    except Exception: return False


def png_is_whole(data: bytes) -> bool:
    place = 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place:place + 4], "big")
        kind, body = data[place + 4:place + 8], data[place + 8:place + 8 + length]
        if kind == b"IEND": return True
        if zlib.crc32(kind + body) != int.from_bytes(data[place + 8 + length:place + 12 + length], "big"): return False
        place += 12 + length
    return False


def phoenix_agrees(data: bytes, pixels: np.ndarray) -> None:
    head = "\n".join(data.partition(b"[EndofPhoenixHeader]")[0].decode("latin-1").splitlines())
    facts = dict(re.findall(r"(?m)^\s*(\w+)\s*=\s*(.*?)\s*$", head))
    start = int(facts["PhoenixHeaderLength"]) + int(facts.get("native_header_length", 0))
    shape = int(facts["NumberOfRows"]), int(facts["NumberOfColumns"])
    assert pixels.shape == shape and len(data) - start in (8 * pixels.size, 4 * pixels.size), "the header and the length of the file disagree"
    kind = ">f4" if len(data) - start == 8 * pixels.size else ">u2"
    assert np.array_equal(np.frombuffer(data[start:], kind, pixels.size).reshape(shape).astype(np.float32), pixels, equal_nan=True)


GRAY = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)

SMOOTH = np.add.outer(np.arange(12) * 9, np.arange(16) * 7)[..., None].astype(np.uint8) + np.array([0, 20, 40], np.uint8)


def picture(name: str, how: str, write: Callable[[Path], object]) -> Subject:
    "One image file."
    def examine(root: Path) -> str:
        pixels = load_pixels(root, Record("tiny", f"tiny/{name}", name, pixels=how))
        assert pixels.size <= 2**22, f"{pixels.shape} of a file of {(root / name).stat().st_size} bytes"
        same_pixels(root / name, how, pixels)
        if how.startswith("mat:"): mat_agrees(root / name, pixels)
        return "read"
    return Subject(lambda root: write(root / name), examine)


def mat_agrees(path: Path, pixels: np.ndarray) -> None:
    "The values stand in the file as they are: real parts, then imaginary ones, column after column."
    data = path.read_bytes()
    if data[128:129] == b"\x0f": return    # deflated: its own checksum is the witness
    for part in (pixels.real, pixels.imag) if np.iscomplexobj(pixels) else (pixels,):
        raw = np.asfortranarray(part).tobytes(order="F")
        assert raw in data or part.size < 2 or np.asfortranarray(part.byteswap()).tobytes(order="F") in data or np.isnan(part).any(), "values that stand nowhere in the file"


# ---- archives ----

CONTENT = {"a/x.txt": b"first", "a/y.bin": np.random.default_rng(2).bytes(1500), "b.txt": b"", "c/d/e.json": b'{"k": [1, 2]}'}


def archive(name: str, write: Callable[[Path], object], protected: bool) -> Subject:
    "An archive; `protected`: checksums cover the content, so that nothing but what was packed may come out."
    def examine(root: Path) -> str:
        try: count = unpack(root / name, root / "out", max_bytes=2**26, max_files=1000)
        except FileExistsError as error: raise AssertionError(f"raw {error!r}") from error
        finally:
            found = {p.relative_to(root / "out").as_posix(): p.read_bytes() for p in (root / "out").rglob("*") if p.is_file()}
            shutil.rmtree(root / "out", ignore_errors=True)
            assert sorted(p.name for p in root.iterdir()) in ([name], []), "something is left beside the archive"
        assert count == len(found), f"{count} files said to be unpacked, {len(found)} found"
        if protected: assert all(CONTENT.get(place) == data for place, data in found.items()) and len(found) == len(CONTENT), "other content than was packed"
        else: assert found == tar_says((root / name).read_bytes()), "other content than the tar's own headers say"
        return "read"
    return Subject(lambda root: write(root / name), examine)


def tar_says(data: bytes) -> dict[str, bytes]:
    "Members of a ustar archive, by its specification: 512-byte headers with octal sizes, until a block of zeros."
    place, found = 0, {}
    while data[place:place + 512].strip(b"\0"):
        head = data[place:place + 512]
        size, kind = int(head[124:136].strip(b"\0 ") or b"0", 8), head[156:157]
        name = (head[345:500].rstrip(b"\0") + b"/" if head[345:500].strip(b"\0") else b"") + head[:100].partition(b"\0")[0]
        place += 512
        if kind in (b"0", b"\0"): found["/".join(p for p in name.decode("utf-8", "surrogateescape").split("/") if p not in ("", "."))] = data[place:place + size]
        place += -(-size // 512) * 512
    assert len(data[place:place + 512]) == 512, "no end"
    return found


def _tar(mode: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as tar:
            for name, data in CONTENT.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return write


def _zip(method: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as z:
            for name, data in CONTENT.items(): z.writestr(zipfile.ZipInfo(name), data, method)
    return write


# ---- what the study is told ----

@contextlib.contextmanager
def inside(folder: Path):
    with contextlib.chdir(folder): yield


def own_manifest(root: Path) -> None:
    text = (ROOT / "data_manifest.yaml").read_text()
    keep = [text[:text.index("\ndatasets:") + len("\ndatasets:\n")]]
    for name in ("mstar", "sardet_100k"):
        start = text.index(f"\n  {name}:\n") + 1
        keep.append(text[start:re.compile(r"\n(?=  \w+:\n|\w)").search(text, start).start() + 1])
    (root / "data_manifest.yaml").write_text("".join(keep))


def examine_manifest(root: Path) -> str:
    with inside(root): manifest = load_manifest(root / "data_manifest.yaml")
    for key, entry in manifest.datasets.items():
        assert entry.name == key and re.fullmatch(r"[\w.+-][\w .+-]*", key) and key not in (".", ".."), f"the key {key!r} becomes a folder"
        for release in entry.releases:
            assert release.reader in READERS
            for place in (release.folder, *(f.name for f in release.files), *(f.into for f in release.files)): assert not place.startswith("/") and ".." not in place.split("/"), place
    return "read"


def own_profile(root: Path) -> None:
    (root / "profiles").mkdir()
    shutil.copy2(ROOT / "profiles" / "mini.yaml", root / "profiles" / "mini.yaml")
    (root / "data_manifest.yaml").write_text("datasets: {}\n")


def examine_profile(root: Path) -> str:
    with inside(root):
        profile = load_profile("mini")
        for name in NOTEBOOKS: check(name, {"profile": "mini"})
    for name in profile.get("backbones") or []: assert re.fullmatch(r"\w[\w.+-]*", name), f"{name!r} becomes a folder and a word of a command"
    return "read"


def own_parameters(root: Path) -> None:
    own_profile(root)
    values = {"03_train_stage2": {"backbone": "sarclip-mini", "init": "stage1", "epochs": 2, "batch_size": 16, "lr": 0.001, "shift": 0.1, "seed": 0},
              "00_data": {"source": "generated", "scale": 0.5, "datasets": ["mstar"], "fetch": False}, "04_eval_retrieval": {"checkpoint": "a.pt", "export": True},
              "05_eval_recognition": {"shots": [1, 2], "head_epochs": 10}, "07_explore": {"points": 50, "run_dir": "runs", "profile": "mini"}}
    (root / "parameters.json").write_text(json.dumps(values))


def examine_parameters(root: Path) -> str:
    try: sets = json.loads((root / "parameters.json").read_bytes())
    except (ValueError, OSError): return "read"    # not ours: these are the values that somebody typed
    with inside(root):
        for name in NOTEBOOKS:
            if not isinstance(sets, dict) or not isinstance(sets.get(name, {}), dict): continue
            given = sets.get(name, {})
            try: found = check(name, dict(given))
            except ValueError as error:
                assert name in str(error) or any(str(key) in str(error) for key in given) or "profile" in str(error), f"{error!r} names no parameter"
                raise Named(str(error)) from error
            for key, value in given.items():
                if type(value) not in (int, float, bool): continue
                kept = getattr(found, key)
                # a rate of 99999999999999999999 is the float beside it
                assert kept == (float(value) if type(kept) is float else value) or isinstance(kept, list), (key, value, kept)
    return "read"


class Named(ValueError): "Names the parameter, for there is no file."


# ---- models ----

TENSORS = {"a.weight": torch.arange(12.).reshape(3, 4), "a.bias": torch.ones(3)}


def same_tensors(state: dict, data: bytes) -> None:
    for name, tensor in state.items():
        assert tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() in data, f"{name} holds values that stand nowhere in the file"


def weights(name: str, write: Callable[[Path], object]) -> Subject:
    def examine(root: Path) -> str:
        state = load_weights(root / name)
        assert all(isinstance(v, torch.Tensor) for v in state.values()) and state
        same_tensors(state, (root / name).read_bytes())
        zip_is_whole(root / name)
        return "read"
    return Subject(lambda root: write(root / name), examine)


def zip_is_whole(path: Path) -> None:
    "PyTorch's files are zip archives, which hold a checksum of each member."
    if not zipfile.is_zipfile(path): return
    with zipfile.ZipFile(path) as z: assert z.testzip() is None, f"{path.name} was read, and the checksum of {z.testzip()} is wrong"


def examine_description(root: Path) -> str:
    encoder = load_checkpoint(root)
    assert encoder.image_size > 0 and len(encoder.mean) == len(encoder.std) == 3 and all(0 <= m <= 1 for m in encoder.mean) and all(0 < d <= 1 for d in encoder.std), (encoder.mean, encoder.std)
    return "read"


STATE = {"model": TENSORS, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "loss": [1.0, 0.5]}


def states(root: Path) -> States: return States(root, {"seed": 0}, 3)


def examine_state(root: Path) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed: state = states(root).latest()
    if state is None or state["step"] != 2:
        assert "damaged" in printed.getvalue() or not states(root).steps() or max(states(root).steps()) != 2, "a state is passed over without a word"
        return "reported"
    same_tensors(state["model"], (path := states(root).folder / "step_00000002.pt").read_bytes())
    zip_is_whole(path)
    return "read"


def own_features(root: Path) -> None:
    save_features(root / "f.safetensors", Features(np.eye(3, 4, dtype=np.float32), ("a", "b", "c"), "m", "d", "p"))


def examine_features(root: Path) -> str:
    found = load_features(root / "f.safetensors")
    assert found.values.astype(np.float32).tobytes() in (root / "f.safetensors").read_bytes() and len(found.ids) == len(found.values)
    return "read"


CAPTIONS = ["A SAR image of an ship.", "Two aircraft."]


def own_reply(root: Path) -> None:
    answer = json.dumps({"captions": [{"id": n, "text": text, "finding": "x"} for n, text in enumerate(CAPTIONS, 1)]})
    (root / "reply.json").write_text(json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]}))


def examine_reply(root: Path) -> str:
    if not (root / "reply.json").is_file(): return "read"    # an answer is no file; it is one here to be damaged like one
    try: found = read_reply((root / "reply.json").read_bytes(), CAPTIONS)
    except ValueError as error: raise Named(str(error)) from error    # the endpoint is named where it is asked
    assert set(found) == set(CAPTIONS) and all(isinstance(t, str) and isinstance(f, str) for t, f in found.values())
    return "read"


def _mat(packed: bool) -> Callable[[Path], None]:
    return lambda path: scipy.io.savemat(path, {"complex_img": GRAY * np.exp(1j * GRAY)}, do_compression=packed)


SUBJECTS: dict[str, Subject] = {f"dataset {name}": dataset(name) for name in bad.DATASETS} | {
    "png gray": picture("a.png", "image", lambda p: Image.fromarray(GRAY).save(p)),
    "png colour": picture("a.png", "image", lambda p: Image.fromarray(COLOUR).save(p)),
    "png 16 bits": picture("a.png", "image", lambda p: Image.fromarray(GRAY.astype(np.uint16) * 257).save(p)),
    "jpeg": picture("a.jpg", "image", lambda p: Image.fromarray(SMOOTH).save(p, quality=95, subsampling=0)),
    "bmp": picture("a.bmp", "image", lambda p: Image.fromarray(GRAY).save(p)),
    "gif": picture("a.gif", "image", lambda p: Image.fromarray(GRAY).save(p)),
    "webp": picture("a.webp", "image", lambda p: Image.fromarray(COLOUR).save(p, lossless=True)),
    "tiff gray": picture("a.tif", "tiff", lambda p: tifffile.imwrite(p, GRAY)),
    "tiff colour": picture("a.tif", "tiff", lambda p: tifffile.imwrite(p, COLOUR, photometric="rgb")),
    "tiff float": picture("a.tif", "tiff", lambda p: tifffile.imwrite(p, GRAY.astype(np.float32))),
    "tiff complex": picture("a.tif", "tiff", lambda p: tifffile.imwrite(p, GRAY.astype(np.complex64))),
    "tiff deflate tiles": picture("a.tif", "tiff", lambda p: tifffile.imwrite(p, np.tile(GRAY, (4, 4)), tile=(16, 16), compression="zlib")),
    "tiff lzw": picture("a.tif", "tiff", lambda p: Image.fromarray(GRAY).save(p, compression="tiff_lzw")),
    "phoenix": picture("a.000", "phoenix", lambda p: write_phoenix(p, GRAY.astype(float), {"TargetAz": 3.5})),
    "mat": picture("a.mat", "mat:complex_img", _mat(False)), "mat deflated": picture("a.mat", "mat:complex_img", _mat(True)),
    "tar": archive("a.tar", _tar("w"), False), "tar.gz": archive("a.tar.gz", _tar("w:gz"), True),
    "tar.bz2": archive("a.tar.bz2", _tar("w:bz2"), True), "tar.xz": archive("a.tar.xz", _tar("w:xz"), True),
    "zip stored": archive("a.zip", _zip(zipfile.ZIP_STORED), True), "zip deflated": archive("a.zip", _zip(zipfile.ZIP_DEFLATED), True),
    "manifest": Subject(own_manifest, examine_manifest), "profile": Subject(own_profile, examine_profile, lambda name: name == "data_manifest.yaml"),
    "parameters": Subject(own_parameters, examine_parameters, lambda name: name != "parameters.json"),
    "weights safetensors": weights("w.safetensors", lambda p: save_file(TENSORS, p)), "weights pickled": weights("w.pt", lambda p: torch.save(TENSORS, p)),
    "checkpoint description": Subject(lambda root: save_checkpoint(create("sarclip-mini"), root), examine_description, lambda name: name == "model.safetensors"),
    "training state": Subject(lambda root: [states(root).save(step, STATE) for step in (1, 2)], examine_state, lambda name: "00000001" in name),
    "features": Subject(own_features, examine_features), "language model's reply": Subject(own_reply, examine_reply),
}
