"""Feature extraction against a plain OpenCLIP loop: same images on disk, same model, batch and workers, in one run.

The plain loop is what a careful user writes: a dataset that opens each file and applies OpenCLIP's evaluation transform, a DataLoader,
`encode_image`, normalise. Ours decodes into the image cache (timed, first pass) and streams from there. Rounds alternate; the ratio is
plain seconds over ours, both with decoding. `cached` is the ratio of every further pass. `--quick` takes an eighth of the images.
"""
import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

import sarclip    # before open_clip, which imports torchvision
import open_clip
from sarclip.evaluation.features import image_features
from sarclip.training.loader import load_images
from sarclip.models.factory import create
from sarclip.core.records import Record, records_to_frame

IMAGES, BATCH, WORKERS, ROUNDS, BACKBONE = 1_024, 64, 0, 3, "sarclip-mini"


class Files(torch.utils.data.Dataset):
    "Image files through OpenCLIP's own transform."

    def __init__(self, paths: list[Path], transform: Callable): self.paths, self.transform = paths, transform

    def __len__(self) -> int: return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor: return self.transform(Image.open(self.paths[i]))


def plain(model: torch.nn.Module, transform: Callable, paths: list[Path]) -> np.ndarray:
    "The loop of OpenCLIP's documentation, over a DataLoader."
    loader = torch.utils.data.DataLoader(Files(paths, transform), BATCH, num_workers=WORKERS)
    with torch.inference_mode(): return torch.cat([model.encode_image(batch, normalize=True) for batch in loader]).numpy()


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the images, to see that it runs")
    n = IMAGES // 8 if parser.parse_args().quick else IMAGES
    encoder = create(BACKBONE)
    transform = open_clip.image_transform(encoder.image_size, is_train=False, mean=encoder.mean, std=encoder.std)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root, records = Path(folder), []
        (root / "bench").mkdir()
        for i in range(n):    # square, at the model's size: both sides see the same pixels, whatever their resampling
            Image.fromarray(rng.integers(0, 256, (encoder.image_size, encoder.image_size), np.uint8)).save(root / "bench" / f"{i:05d}.png")
            records.append(Record("bench", f"bench/{i:05d}.png", f"{i:05d}.png"))
        table = records_to_frame(records).assign(root="bench", crop=pd.NA, tone="none")
        paths = [root / "bench" / r.path for r in records]

        def ours(cache: Path) -> np.ndarray: return image_features(encoder, load_images(table, root, encoder.image_size, cache, progress=False), BATCH)

        plain(encoder.model, transform, paths[:BATCH]), ours(root / "warm")    # both warm: files in memory, kernels chosen
        rounds = []
        for i in range(ROUNDS):
            theirs, a = timed(lambda: plain(encoder.model, transform, paths))
            first, b = timed(lambda: ours(root / f"cache{i}"))
            again, _ = timed(lambda: ours(root / f"cache{i}"))
            rounds.append((theirs, first, again))
        difference = float(np.abs(a - b).max())
    theirs, first, again = np.median(rounds, axis=0)
    print(f"{n:,} images, {BACKBONE}, batch {BATCH}, {WORKERS} workers, {torch.get_num_threads()} threads, median of {ROUNDS} rounds")
    print(f"{'what':<40}{'seconds':>9}{'images/s':>10}")
    for what, took in (("plain OpenCLIP loop", theirs), ("ours, first pass (decodes)", first), ("ours, later passes (cached)", again)): print(f"{what:<40}{took:>9.2f}{n / took:>10.0f}")
    print(f"ratio {theirs / first:.2f} (goal: at least 1), cached {theirs / again:.2f}; largest difference of a feature value {difference:.1e}")
    print(json.dumps({"ratio": round(theirs / first, 3), "cached": round(theirs / again, 3), "images": n, "difference": difference, "holds": bool(theirs >= first and difference < 1e-4)}))


main()
