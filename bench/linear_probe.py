"""The paper's linear head at MSTAR-SOC's size: 10,000 epochs, 2,747 training and 2,425 test images, 768 features, 10 classes.

Features are one random convolution layer on MSTAR's chips (the real ones where `$SARCLIP_RUNS`/real holds them, generated ones
otherwise), reduced to 768 by a random projection: real images, an accuracy well below 99%. The yardstick is L-BFGS logistic
regression on the same features, its strength chosen inside the training set. `--quick` takes 1,000 epochs.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from sarclip.core.settings import runs_folder
from sarclip.evaluation.linear_head import HeadConfig, linear_head
from sarclip.evaluation.recognition import linear_probe

TRAIN, TEST, WIDTH, SIZE = 2_747, 2_425, 768, 64


def real_chips(run: Path) -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    "The chips of MSTAR-SOC from a run of the real profile."
    from sarclip.training.loader import load_images
    from sarclip.data.manifest import load_manifest
    from sarclip.data.split import evaluation_parts
    from sarclip.captions.pairs import read_table
    from sarclip.core.records import frame_to_records

    table = read_table(run / "data" / "01_build_dataset" / "records.parquet").set_index("image_id", drop=False)
    parts = evaluation_parts(frame_to_records(table[table.dataset == "mstar"]), load_manifest().evaluations["mstar_soc"])
    chips = [load_images(table.loc[[r.image_id for r in part]], run / "data" / "datasets", SIZE, progress=False) for part in parts]
    return chips[0], [r.labels[0] for r in parts[0]], chips[1], [r.labels[0] for r in parts[1]]


def generated_chips() -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    "Bright scatterers of ten layouts under one-look speckle, turned at random: MSTAR in spirit and size."
    rng = np.random.default_rng(0)
    layouts = rng.uniform(-14, 14, (10, 6, 2))
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2

    def draw(n: int) -> tuple[np.ndarray, list[str]]:
        y, images = np.arange(n) % 10, np.empty((n, SIZE, SIZE, 1), np.uint8)
        for i, label in enumerate(y):
            angle = rng.uniform(0, 2 * np.pi)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            mean = 1 + sum(25 * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 6) for r, c in layouts[label] @ turn + rng.normal(0, 1, (6, 2)))
            images[i, ..., 0] = np.clip(20 * np.sqrt(mean * rng.exponential(size=mean.shape)), 0, 255)
        return images, [str(label) for label in y]

    return *draw(TRAIN), *draw(TEST)


def features(images: np.ndarray) -> np.ndarray:
    "One random convolution layer, pooled, projected to 768 numbers and brought to length 1."
    rng = torch.Generator().manual_seed(0)
    kernels, parts = torch.randn(32, 1, 7, 7, generator=rng) / 7, []
    project = torch.randn(32 * 16 * 16, WIDTH, generator=rng) / 90
    for batch in torch.from_numpy(np.ascontiguousarray(images[..., 0])).float().div(255).unsqueeze(1).split(256):
        maps = torch.nn.functional.avg_pool2d(torch.relu(torch.nn.functional.conv2d(batch, kernels, padding=3)), 4)
        parts.append(torch.nn.functional.normalize(maps.flatten(1) @ project, dim=1))
    return torch.cat(parts).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 epochs, to see that it runs")
    epochs = 1_000 if parser.parse_args().quick else 10_000
    run = runs_folder() / "real"
    there = (run / "data" / "01_build_dataset" / "records.parquet").is_file()
    train_images, train_y, test_images, test_y = real_chips(run) if there else generated_chips()
    train_x, test_x, classes = features(train_images), features(test_images), sorted(set(train_y))
    started = time.perf_counter()
    yardstick = linear_probe(train_x, train_y, test_x, test_y, classes)
    solved = time.perf_counter() - started
    started = time.perf_counter()
    head = linear_head(train_x, train_y, test_x, test_y, classes, config=HeadConfig(epochs))
    spent = time.perf_counter() - started
    print(f"{len(train_x):,} × {train_x.shape[1]} features of {'real' if there else 'generated'} chips, {len(test_x):,} test images, {len(classes)} classes, {torch.get_num_threads()} threads")
    print(f"{'what':<40}{'seconds':>9}{'accuracy':>10}")
    for what, took, result in ((f"linear head, {epochs:,} epochs", spent, head), ("L-BFGS yardstick", solved, yardstick)): print(f"{what:<40}{took:>9.1f}{result.accuracy:>9.2f}%")
    apart = abs(head.accuracy - yardstick.accuracy)
    print(f"{spent:.0f} s (goal: at most 120), {apart:.2f} points apart (goal: at most 0.3), accuracy below 99%: {'yes' if yardstick.accuracy < 99 else 'no'}")
    print(json.dumps({"epochs": epochs, "seconds": round(spent, 1), "accuracy": round(head.accuracy, 3), "lbfgs_accuracy": round(yardstick.accuracy, 3),
                      "images": len(train_x), "dim": train_x.shape[1], "data": "real" if there else "generated", "holds": spent <= 120 and apart <= .3 and yardstick.accuracy < 99}))


main()
