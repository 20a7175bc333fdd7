"""A trained model in somebody else's hands: plain OpenCLIP, ONNX and `sarclip.load` say what the study says."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

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
