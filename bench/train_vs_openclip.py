"""Our trainer against OpenCLIP's own (`open_clip_train.main`): same model, images, captions, batch, precision and machine.

Each run is a process of its own, and the sides take turns. OpenCLIP reads the image files with its workers, ours reads the same files
into its cache once. Generated images, captioned by sarclip.captions.templates, sources in the proportions of Table I.
Needs the extras of OpenCLIP's trainer: pip install "open_clip_torch[training]" (webdataset is what it misses first).
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

GIB = 1024**2 if sys.platform == "linux" else 1024**3    # ru_maxrss counts KiB on Linux, bytes on macOS
SIDES = ("openclip", "ours", "ours, every caption")
GOALS = {"cpu": {"ViT-B-32": 1.8, "RN50": 1.5}, "gpu": {"ViT-B-32": 1.3, "RN50": 1.3, "ViT-L-14": 1.0}}
DIGITS = 6    # of figures in the JSON line


def main() -> None:
    arguments = parse()
    if arguments.side:
        print(json.dumps(RUNS[arguments.side](arguments)))
        return
    import torch

    from sarclip.core.hardware import hardware_name
    with tempfile.TemporaryDirectory(prefix="train_vs_openclip_") as folder:
        arguments.folder = Path(folder)
        distinct = write_data(arguments)
        print(f"{hardware_name(torch.device('cpu'))}; {arguments.batch} captions a batch, of which {distinct:.0%} distinct; Table I's proportions")
        cpu = {name: compare(name, "cpu", arguments) for name in arguments.backbones if name in GOALS["cpu"] or name not in GOALS["gpu"]}
        memory = peak_at_256(arguments) if arguments.memory_batch else None
        waits = {"mini": run("ours", "sarclip-mini", "cpu", arguments, batch=min(32, arguments.batch))["data_wait"]}
        gpu = {name: compare(name, "cuda", arguments) for name in arguments.gpu_backbones} if torch.cuda.is_available() else None
        if gpu: print(hardware_name(torch.device("cuda")))
    report(cpu, gpu)
    if memory: print(f"ViT-B-32, batch {arguments.memory_batch} in micro-batches of {arguments.micro_batch}: {memory:.1f} GiB (goal: under 12)")
    print(f"waiting for data: " + ", ".join(f"{name} {share:.1%}" for name, share in waits.items()) + " (goal: under 5%)")
    figures = {"cpu": cpu, "gpu": gpu, "distinct_captions": distinct, "workers": arguments.workers, "peak_gib_batch_256": memory, "data_wait": waits, "hardware": hardware_name(torch.device("cuda" if gpu else "cpu"))}
    print(json.dumps(figures | {"holds": holds(cpu, gpu, memory, waits)}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="*", default=["ViT-B-32", "RN50"], help="measured on the CPU")
    parser.add_argument("--gpu-backbones", nargs="*", default=["RN50", "ViT-B-32", "ViT-L-14"], help="measured where a CUDA GPU is at hand")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--gpu-batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=7, help="steps a run on the CPU, of which the first two are not timed: memory is touched and kernels are chosen")
    parser.add_argument("--gpu-steps", type=int, default=40, help="steps a run on the GPU, of which the first ten are not timed")
    parser.add_argument("--rounds", type=int, default=2, help="how often the sides take turns")
    parser.add_argument("--agree-batch", type=int, default=8)
    parser.add_argument("--agree-steps", type=int, default=50, help="steps over which both sides see the same batches; 0: leave out")
    parser.add_argument("--memory-batch", type=int, default=256, help="batch at which ViT-B-32's memory is measured; 0: leave out")
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of OpenCLIP's loader; all cores, so that it never starves")
    parser.add_argument("--side", help=argparse.SUPPRESS)    # the rest: what a run is told by the process that starts it
    parser.add_argument("--backbone", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# What is trained on

def write_data(arguments: argparse.Namespace) -> float:
    """Images as PNG files with one caption each, `pairs.csv` for OpenCLIP and `pairs.parquet` for us; the mean share of distinct captions in a batch.

    As many as the longest run eats; an image may come twice where the simulation has too few of its source, with another caption.
    """
    from PIL import Image

    from sarclip.captions.templates import caption_record
    from sarclip.data.imaging import centre_crop, to_uint8
    from sarclip.data.manifest import load_manifest
    from sarclip.data.pixels import load_pixels
    from sarclip.data.sources import generate, read_records, read_sources

    folder, rng = arguments.folder, np.random.default_rng(0)
    n = max(arguments.batch * arguments.steps, arguments.agree_batch * arguments.agree_steps, 2 * arguments.memory_batch)
    generate(load_manifest(), folder / "datasets", seed=0, scale=min(1.0, max(0.06, n / 3000)))
    manifest, sources = read_sources(load_manifest(), folder / "datasets")
    records = [r for r in read_records(manifest, sources, folder / "datasets") if manifest.datasets[r.dataset].role == "sar" and r.split == "train"]
    captions = {name: dataset.expected.train_captions for name, dataset in manifest.datasets.items() if any(r.dataset == name for r in records)}
    share = pd.Series(captions, dtype=float) / sum(captions.values())
    of_source = {name: [r for r in records if r.dataset == name] for name in share.index}
    rows = []
    (folder / "images").mkdir()
    for i, name in enumerate(rng.choice(share.index, n, p=share)):
        record, dataset = of_source[name][rng.integers(len(of_source[name]))], manifest.datasets[name]
        path = folder / "images" / f"{record.image_id.replace('/', '_').replace('#', '_')}.png"
        if not path.exists():
            image = to_uint8(load_pixels(folder / "datasets" / name, record), dataset.tone)
            Image.fromarray(image if dataset.crop is None else centre_crop(image, dataset.crop)).save(path)
        rows.append((i, str(path), rng.choice([c.text for c in caption_record(record, dataset.classes, seed=0)])))
    pairs = pd.DataFrame(rows, columns=["row", "filepath", "caption"])
    pairs.to_parquet(folder / "pairs.parquet")
    for batch, steps in {(arguments.batch, arguments.steps), (arguments.gpu_batch, arguments.gpu_steps)}: csv(pairs, batch * steps).to_csv(folder / f"{batch}x{steps}.csv", index=False)
    return float(np.mean([pairs.caption[i:i + arguments.batch].nunique() / arguments.batch for i in range(0, n - arguments.batch + 1, arguments.batch)]))


def csv(pairs: pd.DataFrame, n: int) -> pd.DataFrame:
    "The first n pairs, over again where there are fewer."
    return pairs[["filepath", "caption"]].iloc[np.arange(n) % len(pairs)]


def our_data(arguments: argparse.Namespace, size: int, n: int) -> object:
    "The first n pairs as our trainer takes them, and how long reading the image files took."
    from sarclip.training.loader import PairData, load_images
    from sarclip.core.records import Record, records_to_frame

    pairs = csv(pd.read_parquet(arguments.folder / "pairs.parquet"), n)
    files = pairs.filepath.unique()
    frame = records_to_frame([Record("bench", f"bench/{Path(f).name}", Path(f).name) for f in files])
    frame["root"], frame["tone"], frame["crop"] = "images", "none", pd.array([None] * len(frame), dtype="Int64")
    images = load_images(frame, arguments.folder, size, arguments.folder / "cache", progress=False)
    images = images[pd.Series(range(len(files)), files)[pairs.filepath].to_numpy()]    # one row a pair: an epoch then holds n images, as OpenCLIP's does
    return PairData(images, np.arange(n), pairs.caption.tolist(), ["[]"] * n)


# One run, in a process of its own

def train_openclip(arguments: argparse.Namespace) -> dict:
    "OpenCLIP's trainer as its users start it. Steps are timed from loss to loss."
    import sarclip.models.factory    # noqa: F401  before open_clip, which learns of sarclip-mini by it
    import torch
    from open_clip.loss import ClipLoss
    from open_clip_train.main import main as openclip_main

    from sarclip.training.recipe import recipe

    batch, steps, warm = sizes(arguments)
    times, plain = [], ClipLoss.forward
    def timed(*inputs: object, **settings: object) -> object:
        if arguments.device == "cuda" and len(times) in (warm, steps - 1): torch.cuda.synchronize()
        times.append(time.perf_counter())
        return plain(*inputs, **settings)
    ClipLoss.forward = timed
    openclip_main(["--train-data", str(arguments.folder / f"{batch}x{steps}.csv"), "--dataset-type", "csv", "--csv-separator", ",", "--csv-img-key", "filepath",
                   "--csv-caption-key", "caption", "--workers", str(arguments.workers), *common(arguments, recipe(known(arguments.backbone)), batch, warmup=steps // 10)])
    return {"images_per_s": batch * (steps - 1 - warm) / (times[-1] - times[warm]), **peak(arguments)}


def common(arguments: argparse.Namespace, config: object, batch: int, warmup: int) -> list[str]:
    "Settings of OpenCLIP's trainer that make it train as ours does."
    return ["--model", arguments.backbone, "--batch-size", str(batch), "--epochs", "1", "--lr", str(config.lr), "--warmup", str(warmup), "--wd", str(config.weight_decay),
            "--beta1", str(config.betas[0]), "--beta2", str(config.betas[1]), "--eps", str(config.eps), "--grad-clip-norm", str(config.grad_clip),
            "--precision", "amp_bf16" if arguments.device == "cuda" else "fp32", "--device", arguments.device, "--logs", str(arguments.folder / "logs"), "--log-every-n-steps", "1000000"]


def train_ours(arguments: argparse.Namespace) -> dict:
    "Our trainer, with `train`'s own log."
    import torch

    from sarclip.core.hardware import count_flops, hardware_name, peak_flops
    from sarclip.training.loader import preprocess, to_tensor
    from sarclip.training.loss import LOSSES
    from sarclip.models.encode import encode_image, encode_text
    from sarclip.models.factory import create
    from sarclip.training.recipe import recipe
    from sarclip.training.train import train

    batch, steps, warm = sizes(arguments)
    encoder = create(arguments.backbone, device=arguments.device)
    began = time.perf_counter()
    data = our_data(arguments, encoder.image_size, batch * steps)
    read = time.perf_counter() - began
    micro = arguments.micro_batch if arguments.side == "ours, in parts" else None
    log = train(encoder, data, recipe(known(arguments.backbone), batch_size=batch, epochs=1, max_steps=steps, warmup_steps=1000, micro_batch=micro), progress=False)[warm:]
    seconds = sum(entry["seconds"] for entry in log)
    found = {"images_per_s": batch * len(log) / seconds, "data_wait": float(np.median([entry["data_share"] for entry in log])), "read_s": read, **peak(arguments)}
    if arguments.device == "cuda":
        images = preprocess(to_tensor(data.images[:batch]).to(encoder.device), encoder.mean, encoder.std)
        tokens = encoder.tokenizer(data.captions[:batch]).to(encoder.device)
        def step() -> None:
            with torch.autocast("cuda", torch.bfloat16): loss = LOSSES["clip"](encode_image(encoder.model, images), encode_text(encoder.model, tokens), encoder.model.logit_scale.exp(), [])
            loss.backward()
        promised = peak_flops(hardware_name(encoder.device))
        found["mfu"] = promised and count_flops(step) * found["images_per_s"] / batch / promised
    return found


def train_ours_every_caption(arguments: argparse.Namespace) -> dict:
    "Our trainer, encoding each caption as often as it comes and each from its first word; padding is still left out."
    import torch

    import sarclip.models.encode
    def every(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tokens[:, :int(tokens.argmax(-1).max()) + 1], torch.arange(len(tokens), device=tokens.device)
    sarclip.models.encode.distinct_captions = every
    sarclip.models.encode.shared_with_above = lambda tokens: torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    return train_ours(arguments)


def losses_openclip(arguments: argparse.Namespace) -> dict:
    "Losses of OpenCLIP's trainer, its data replaced by the batches that ours will see."
    from sarclip.models.checkpoint import save_checkpoint
    from sarclip.models.factory import create    # before open_clip, which learns of sarclip-mini by it

    import open_clip_train.main
    from open_clip.loss import ClipLoss
    from open_clip_train.data import DataInfo

    encoder, data, config = agreement(arguments)
    start = save_checkpoint(create(arguments.backbone, seed=0), arguments.folder / f"start-{arguments.backbone}")
    open_clip_train.main.get_data = lambda *_, **__: {"train": DataInfo(SameBatches(encoder, data, config))}
    losses, plain = [], ClipLoss.forward
    def kept(*inputs: object, **settings: object) -> dict:
        result = plain(*inputs, **settings)
        losses.append(result["contrastive_loss"].item())
        return result
    ClipLoss.forward = kept
    open_clip_train.main.main(["--train-data", "given", "--pretrained", str(start), *common(arguments, config, config.batch_size, warmup=config.max_steps // 10)])
    return {"losses": losses}


def losses_ours(arguments: argparse.Namespace) -> dict:
    "Losses of our trainer on the same batches from the same weights."
    from sarclip.training.train import train
    encoder, data, config = agreement(arguments)
    return {"losses": [entry["loss"] for entry in train(encoder, data, config, progress=False)]}


def agreement(arguments: argparse.Namespace) -> tuple:
    """Model, data and settings of the comparison of losses: whole images, so that no crop is random.

    The learning rate is what the recipe's warm-up of 1,000 steps has reached by then. At the peak, a fresh RN50 amplifies rounding until
    two runs of any trainer differ.
    """
    from sarclip.models.factory import create
    from sarclip.training.recipe import recipe
    whole = recipe(known(arguments.backbone))
    encoder = create(arguments.backbone, seed=0)
    data = our_data(arguments, encoder.image_size, arguments.agree_batch * arguments.agree_steps)
    return encoder, data, recipe(known(arguments.backbone), batch_size=arguments.agree_batch, epochs=1, max_steps=arguments.agree_steps, lr=whole.lr * min(1, arguments.agree_steps / whole.warmup_steps), crop_scale=(1.0, 1.0), shift=0.0, precision="float32")


class SameBatches:
    "What OpenCLIP's trainer takes for a data loader: images and tokens of our trainer's batches, in its order."

    def __init__(self, encoder: object, data: object, config: object):
        self.encoder, self.data, self.config = encoder, data, config
        self.num_batches = config.max_steps
        self.num_samples = config.max_steps * config.batch_size

    def __iter__(self) -> object:
        import torch

        from sarclip.training.augment import augment
        for batch in self.data.batches(self.config.batch_size, self.config.seed, 0):
            images = augment(batch.images, torch.Generator().manual_seed(0), self.encoder.mean, self.encoder.std, self.config.augmentation)
            yield images, self.encoder.tokenizer(batch.captions)


RUNS = {"openclip": train_openclip, "ours": train_ours, "ours, every caption": train_ours_every_caption, "ours, in parts": train_ours,
        "openclip losses": losses_openclip, "our losses": losses_ours}


def sizes(arguments: argparse.Namespace) -> tuple[int, int, int]:
    "Batch, steps, and how many steps at the start are not timed."
    if arguments.device == "cuda": return arguments.gpu_batch, arguments.gpu_steps, min(10, arguments.gpu_steps - 2)
    return arguments.batch, arguments.steps, min(2, arguments.steps - 2)


def known(backbone: str) -> str:
    "The backbone whose recipe is used."
    from sarclip.training.recipe import RECIPES
    return backbone if backbone in RECIPES else "ViT-B-32"


def peak(arguments: argparse.Namespace) -> dict:
    "Most memory held: of the GPU, or of this process without its workers."
    import torch
    if arguments.device == "cuda": return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30}
    return {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB}


# What is compared

def run(side: str, backbone: str, device: str, arguments: argparse.Namespace, **changes: int) -> dict:
    "One run in a process of its own; RuntimeError with what it last said when it fails."
    settings = {name: getattr(arguments, name) for name in ("batch", "gpu_batch", "steps", "gpu_steps", "agree_batch", "agree_steps", "micro_batch", "workers", "folder")} | changes
    words = [sys.executable, __file__, "--side", side, "--backbone", backbone, "--device", device, *(w for k, v in settings.items() for w in (f"--{k.replace('_', '-')}", str(v)))]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "Error" in line] or [f"status {done.returncode}"]
        raise RuntimeError(f"{side} with {backbone} on {device} failed: {said[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(backbone: str, device: str, arguments: argparse.Namespace) -> dict:
    "Speed and memory of all sides, taking turns, and how far the losses of the two trainers lie apart."
    rounds = [{side: run(side, backbone, device, arguments) for side in SIDES} for _ in range(arguments.rounds)]
    speed = {side: float(np.median([r[side]["images_per_s"] for r in rounds])) for side in SIDES}
    ratio = {side: float(np.median([r[side]["images_per_s"] / r["openclip"]["images_per_s"] for r in rounds])) for side in SIDES}
    memory = {side: max(r[side]["peak_gib"] for r in rounds) for side in SIDES}
    found = {"ratio": ratio["ours"], "ratio_every_caption": ratio["ours, every caption"], "memory_ratio": memory["ours"] / memory["openclip"], "images_per_s": speed["ours"],
             "openclip_images_per_s": speed["openclip"], "peak_gib": memory["ours"], "openclip_peak_gib": memory["openclip"], "data_wait": max(r["ours"]["data_wait"] for r in rounds), "decode_once_s": float(np.median([r["ours"]["read_s"] for r in rounds]))}
    if device == "cuda": return rounded(found | {"mfu": rounds[-1]["ours"]["mfu"]})
    if arguments.agree_steps:
        theirs, ours = (run(side, backbone, device, arguments)["losses"] for side in ("openclip losses", "our losses"))
        apart = np.abs(np.array(ours) / np.array(theirs) - 1)
        found |= {"loss_apart_first": float(apart[0]), "loss_apart_last": float(apart[-1])}
    return rounded(found)


def rounded(figures: dict) -> dict:
    return {name: value and float(f"{value:.{DIGITS}g}") for name, value in figures.items()}


def peak_at_256(arguments: argparse.Namespace) -> float:
    "GiB that ViT-B-32 takes for a batch of 256 in micro-batches."
    return run("ours, in parts", "ViT-B-32" if "ViT-B-32" in arguments.backbones else arguments.backbones[0], "cpu", arguments, batch=arguments.memory_batch, steps=2)["peak_gib"]


def report(cpu: dict, gpu: dict | None) -> None:
    print(f"{'':<16}{'OpenCLIP':>12}{'ours':>12}{'ratio':>8}{'each caption':>14}{'memory':>9}{'data wait':>11}{'loss 1':>10}{'loss last':>11}")
    for device, table in {"CPU": cpu, "GPU": gpu or {}}.items():
        for name, f in table.items():
            losses = "".join(f"{f[k]:>{w}.1e}" if k in f else " " * w for k, w in (("loss_apart_first", 10), ("loss_apart_last", 11)))
            print(f"{device + ' ' + name:<16}{f['openclip_images_per_s']:>8.2f} i/s{f['images_per_s']:>8.2f} i/s{f['ratio']:>8.2f}{f['ratio_every_caption']:>14.2f}{f['memory_ratio']:>9.2f}{f['data_wait']:>11.1%}{losses}"
                  + (f"  MFU {f['mfu']:.0%}" if f.get("mfu") else ""))


def holds(cpu: dict, gpu: dict | None, memory: float | None, waits: dict[str, float]) -> bool:
    "Whether every goal is met; a backbone without a goal of its own has only to agree."
    fast = all(f["ratio"] >= GOALS[device].get(name, 0) for device, table in (("cpu", cpu), ("gpu", gpu or {})) for name, f in table.items())
    measured = [*cpu.values(), *(gpu or {}).values()]
    lean = all(f["memory_ratio"] <= 1 for f in measured) and (memory is None or memory < 12)
    agree = all(f.get("loss_apart_first", 0) <= 1e-5 and f.get("loss_apart_last", 0) <= 1e-2 for f in cpu.values())
    return fast and lean and agree and max([*waits.values(), *(f["data_wait"] for f in measured)]) < 0.05


main()
