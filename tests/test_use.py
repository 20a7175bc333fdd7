"""A trained model in somebody else's hands: plain OpenCLIP, ONNX and `sarclip.load` say what the study says."""
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT

import sarclip    # before open_clip, which imports torchvision
from sarclip.core.records import Record, records_to_frame

SIZES = [(64, 64), (128, 128), (54, 54), (173, 177), (300, 40), (41, 320), (700, 500), (65, 63), (512, 512), (90, 200)]    # width, height


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "A folder with 100 pictures of ten sizes: gray and colour, PNG, JPEG, BMP and TIFF."
    rng, where = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for i in range(100):
        width, height = SIZES[i % 10]
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3) if i % 3 == 2 else (height // 8 + 1, width // 8 + 1), np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(where / f"{i:03}{('.png', '.jpg', '.bmp', '.tif')[i // 10 % 4]}")
    return where


@pytest.fixture(scope="module")
def encoder():
    from sarclip.models.factory import create
    return create("sarclip-mini", seed=3)


@pytest.fixture(scope="module")
def checkpoint(encoder, tmp_path_factory) -> Path:
    from sarclip.models.checkpoint import save_checkpoint
    return save_checkpoint(encoder, tmp_path_factory.mktemp("run") / "checkpoint").parent


TEXTS = ["A SAR image of a ship.", "Two T-72 main battle tanks in the upper left, beside trees.", "x"]


@pytest.fixture(scope="module")
def study(encoder, folder) -> tuple[np.ndarray, np.ndarray]:
    "Features of the pictures and of TEXTS as notebooks 04 and 05 compute them: records, loader, evaluation."
    from sarclip.evaluation.features import image_features, text_features
    from sarclip.training.loader import load_images
    names = sorted(p.name for p in folder.iterdir())
    records = records_to_frame(Record("own", f"own/{name}", name) for name in names).assign(root=".", crop=pd.NA, tone="none")
    return image_features(encoder, load_images(records, folder, encoder.image_size, progress=False)), text_features(encoder, TEXTS)


def open_clip_features(place: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    "What OpenCLIP's own lines give: its model, its transform for that model, its tokenizer."
    import open_clip
    import torch
    model, _, transform = open_clip.create_model_and_transforms(place)
    model.eval()
    with torch.no_grad():
        images = torch.stack([transform(Image.open(path)) for path in sorted(folder.iterdir())])
        return (model.encode_image(images, normalize=True).numpy(), model.encode_text(open_clip.get_tokenizer(place)(TEXTS), normalize=True).numpy())


def test_plain_open_clip_agrees_on_files(checkpoint, folder, study):
    for got, wanted in zip(open_clip_features(f"local-dir:{checkpoint}", folder), study): assert np.abs(got - wanted).max() < 1e-5


def test_load_agrees_on_files(checkpoint, folder, study):
    model = sarclip.load(checkpoint, device="cpu")
    for got, wanted in zip((model.encode_images(folder), model.encode_texts(TEXTS)), study): assert np.abs(got - wanted).max() < 1e-5


@pytest.fixture(scope="module")
def exported(encoder, tmp_path_factory) -> Path:
    pytest.importorskip("onnxscript", reason="ONNX is an extra: sarclip[onnx]")
    from sarclip.use.onnx import export_onnx
    where = tmp_path_factory.mktemp("onnx")
    assert max(export_onnx(encoder, where).values()) < 1e-5
    return where


def test_onnx_agrees_on_files(exported, folder, study):
    model = sarclip.load(exported)
    for got, wanted in zip((model.encode_images(folder), model.encode_texts(TEXTS)), study): assert np.abs(got - wanted).max() < 1e-5


def test_onnx_needs_nothing_of_ours(exported, folder, study):
    "A letterboxed picture in three channels goes into ONNX Runtime as it is."
    import onnxruntime
    from sarclip.data.imaging import letterbox
    session = onnxruntime.InferenceSession(str(exported / "image_tower.onnx"))
    pictures = [letterbox(np.asarray(Image.open(path).convert("RGB")), 64) for path in sorted(folder.iterdir())]
    assert np.abs(session.run(["features"], {"pictures": np.stack(pictures)})[0] - study[0]).max() < 1e-5


def test_hub_folder_is_loaded_by_open_clip_and_by_us(checkpoint, folder, study, tmp_path):
    from sarclip.use.hub import export_hub
    from sarclip.use.load import load_encoder
    export_hub(load_encoder(checkpoint, "cpu"), tmp_path / "hub")
    model = sarclip.load(tmp_path / "hub", device="cpu")
    for features in (open_clip_features(f"local-dir:{tmp_path / 'hub'}", folder), (model.encode_images(folder), model.encode_texts(TEXTS))):
        for got, wanted in zip(features, study): assert np.abs(got - wanted).max() < 1e-5


KILLED = """
import os, signal, sys
from pathlib import Path
from sarclip.use.load import load_encoder
from sarclip.use.hub import export_hub
from sarclip.use.onnx import export_onnx
folder, replace = Path(sys.argv[3]), os.replace
def killed_in_the_middle(source, target):    # one file is in its place, the others are not
    replace(source, target)
    if Path(target).parent == folder: os.kill(os.getpid(), signal.SIGKILL)
os.replace = killed_in_the_middle
{"hub": export_hub, "onnx": export_onnx}[sys.argv[1]](load_encoder(sys.argv[2], "cpu"), folder)
"""


def check_killed_export(kind: str, export, folder: Path, last: str, refusal: str, tmp_path: Path) -> None:
    "`folder` holds an earlier model's export; one of another model is killed in it, and the next one is whole."
    from sarclip.models.checkpoint import save_checkpoint
    from sarclip.models.factory import create
    whole, other = sorted(p.name for p in folder.iterdir()), create("sarclip-mini", seed=4)
    child = subprocess.run([sys.executable, "-c", KILLED, kind, str(save_checkpoint(other, tmp_path / "other")), str(folder)], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert last in whole and not (folder / last).exists() and list(folder.glob(".export.*.part"))
    with pytest.raises(ValueError, match=refusal): sarclip.load(folder, "cpu")
    export(other, folder)
    assert sorted(p.name for p in folder.iterdir()) == whole
    assert sarclip.load(folder, "cpu").key == sarclip.load(tmp_path / "other", "cpu").key


def test_killed_export_for_a_hub_is_no_mixture_and_the_next_one_sweeps_it(encoder, tmp_path):
    from sarclip.use.hub import export_hub
    export_hub(encoder, tmp_path / "hub")
    check_killed_export("hub", export_hub, tmp_path / "hub", "open_clip_config.json", "nothing says which backbone", tmp_path)


def test_killed_export_of_onnx_is_no_mixture_and_the_next_one_sweeps_it(exported, tmp_path):
    from sarclip.use.onnx import export_onnx
    shutil.copytree(exported, tmp_path / "onnx")
    check_killed_export("onnx", export_onnx, tmp_path / "onnx", "sarclip_onnx.json", "lacks sarclip_onnx.json", tmp_path)


def test_onnx_folder_honours_or_refuses_what_load_is_asked(exported):
    assert sarclip.load(exported, "cpu", backbone="sarclip-mini").name == "sarclip-mini, ONNX"
    for asked, said in [({"precision": "bfloat16"}, "ONNX files, which compute in float32, not in bfloat16; leave precision away"),
                        ({"backbone": "RN50"}, "ONNX files of the backbone sarclip-mini, not of RN50"),
                        ({"device": "cuda:9"}, "device 'cuda:9' is not available to ONNX Runtime"), ({"device": "gpu"}, "got 'gpu'")]:
        with pytest.raises(ValueError, match=said): sarclip.load(exported, **asked)


@pytest.fixture(scope="module")
def peers(encoder, tmp_path_factory) -> tuple[Path, Path, np.ndarray, list[str]]:
    "The exported test set, our weights as a bare file, and what both hold."
    from sarclip.evaluation.interchange import export_test_set
    from sarclip.use.hub import export_state_dict
    rng, where = np.random.default_rng(1), tmp_path_factory.mktemp("interchange")
    images = rng.integers(0, 256, (40, 64, 64, 1), np.uint8)
    captions = [f"{what} in the {place}, number {i}." for i, (what, place) in enumerate((w, p) for w in ("A ship", "Two tanks", "One \"bridge\"", "a car") for p in [f"corner {n}" for n in range(10)])]
    export_test_set(where, pd.DataFrame({"caption": captions}), images)
    return where, export_state_dict(encoder, where / "weights"), images, captions


def recalls(images: np.ndarray, texts: np.ndarray, owner: list[int]) -> list[float]:
    "R@1, 5, 10 of pictures that look for texts, then of texts that look for pictures; percent. `owner`: each text's picture."
    import torch
    scores, owner = torch.tensor(texts @ images.T), torch.tensor(owner)
    to_text = [(owner[scores.T.topk(k, 1).indices] == torch.arange(len(images))[:, None]).any(1).float().mean().item() for k in (1, 5, 10)]
    return [100 * r for r in to_text + [(scores.topk(k, 1).indices == owner[:, None]).any(1).float().mean().item() for k in (1, 5, 10)]]


def ours(encoder, peers) -> tuple[np.ndarray, np.ndarray]:
    from sarclip.evaluation.features import image_features, text_features
    return image_features(encoder, peers[2]), text_features(encoder, peers[3])


def test_sarvlm_reads_our_test_set_from_any_folder(encoder, peers, tmp_path, monkeypatch):
    "eval/RET/eval_retrieval.py, restated: a model by name, `torch.load`, `pd.read_csv`, `Image.open(imgpath)`, zeros where that fails."
    import open_clip
    import torch
    monkeypatch.chdir(tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(model_name="sarclip-mini", pretrained=None, precision="fp32", device="cpu")
    missing, unexpected = model.load_state_dict(torch.load(peers[1], map_location="cpu", weights_only=True), strict=False)
    assert not missing and not unexpected
    model.eval()
    table = pd.read_csv(peers[0] / "test.csv")
    opened = [Image.open(path).convert("RGB") for path in table["imgpath"].tolist()]    # its zeros stand in for what this raises
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(image) for image in opened]), normalize=True).numpy()
        texts = model.encode_text(open_clip.get_tokenizer("sarclip-mini")(table["caption"].tolist()), normalize=True).numpy()
    for got, wanted in zip((images, texts), ours(encoder, peers)): assert np.abs(got - wanted).max() < 1e-5
    assert table["caption"].tolist() == peers[3]


class RemoteClipData:
    "JsonDataset of remoteclip_retrieval.py, restated with its grouping, which a file of single sentences never reaches."

    def __init__(self, json_dir: Path, img_dir: Path, transforms):
        self.img_dir, self.transforms, self.images, self.captions = img_dir, transforms, [], []
        for image in json.load(open(json_dir))["images"]:
            if image["split"] == "test":
                for text in image["sentences"]:
                    self.images.append(image["filename"])
                    self.captions.append(text["raw"].capitalize())
        unique, first = np.unique(self.images, return_index=True)
        if len(unique) != len(self.images):
            grouped = [[c for c, name in zip(self.captions, self.images) if name == self.images[i]] for i in first]
            self.images, self.captions = [self.images[i] for i in first], grouped

    def __getitem__(self, i: int): return self.transforms(Image.open(self.img_dir / self.images[i])), self.captions[i]


def remoteclip(peers, evaluate: bool) -> tuple[np.ndarray, np.ndarray, list[int], list[str]]:
    "Its script: batches of 16 in the dataset's order, `for text in texts`, and no `.eval()` unless somebody adds it."
    import open_clip
    import torch
    import torch.nn.functional as F
    model, _, preprocess = open_clip.create_model_and_transforms(model_name="sarclip-mini", device="cpu")
    model.load_state_dict(torch.load(peers[1], map_location="cpu"))
    model.train(not evaluate)    # as a new model is
    data = RemoteClipData(peers[0] / "dataset.json", peers[0] / "images", preprocess)
    images, texts, owner, read = [], [], [], []
    for first in range(0, len(data.images), 16):
        batch = [data[i] for i in range(first, min(first + 16, len(data.images)))]
        owner += [first + i for i, (_, captions) in enumerate(batch) for _ in captions]
        read += [text for _, captions in batch for text in captions]
        with torch.no_grad():
            images.append(F.normalize(model.encode_image(torch.stack([image for image, _ in batch])), dim=-1))
            texts.append(F.normalize(model.encode_text(open_clip.tokenize([text for _, captions in batch for text in captions])), dim=-1))
    return torch.cat(images).numpy(), torch.cat(texts).numpy(), owner, read


def test_remoteclip_reads_our_test_set_and_groups_it(encoder, peers):
    images, texts, owner, read = remoteclip(peers, evaluate=True)
    assert owner == [0, *range(40)] and read == [peers[3][0].capitalize(), *(c.capitalize() for c in peers[3])]    # sentences, no letters
    wanted = ours(encoder, peers)
    assert np.abs(images - wanted[0]).max() < 1e-5
    for got, own in zip(recalls(images, texts, owner), recalls(wanted[0], wanted[1], list(range(40)))): assert abs(got - own) <= 100 * 2 / 40


def test_remoteclip_without_eval_gives_a_resnet_other_features(encoder, peers):
    assert np.abs(remoteclip(peers, evaluate=False)[0] - ours(encoder, peers)[0]).max() > 1e-2


def test_newcomers_lines_run_as_the_readme_has_them(studied):
    "Paste after `make study`: what stands in the README, for the tests' own small study."
    lines = next(block for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "sarclip.load" in block)
    lines = lines.replace('load("mini")', 'load("runs/tiny/sarclip-mini/stage1")').replace("runs/mini", "runs/tiny")    # other tests trained there too
    status, output = studied.call("python", "-c", lines)
    assert status == 0, output[-3000:]
    assert "class" in output and "similarity" in output and "[[" in output
