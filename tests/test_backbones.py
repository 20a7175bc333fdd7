"""The paper's backbones through notebooks 02 to 07, a few steps each (slow)."""
import json
import resource
import time

import sarclip    # noqa: F401  before open_clip, which imports torchvision
import open_clip
import pytest

from conftest import Project

CHAIN = ("02_train_stage1", "03_train_stage2", "04_eval_retrieval", "05_eval_recognition", "06_ablations", "07_explore")
GIB = 1024**2    # ru_maxrss counts KiB on Linux


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["RN50", "ViT-B-32", "ViT-L-14"])
def test_paper_backbone_runs_within_16_gib(project: Project, backbone: str):
    for notebook in ("00_data", "01_build_dataset"):
        if not (project.runs / "tiny" / "data" / notebook / "metrics.json").exists():
            status, output = project.call("sarclip-run", notebook, "--profile", "tiny")
            assert status == 0, output
    report = {}
    for notebook in CHAIN:
        started = time.monotonic()
        words = ("papermill", f"nbs/{notebook}.ipynb", str(project.folder / f"{notebook}.out.ipynb"), "-p", "profile", "tiny",
                 "-p", "backbone", backbone, "-p", "max_steps", "3", "-p", "batch_size", "4")
        status, output = project.call(*words)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / GIB
        report[notebook] = f"{time.monotonic() - started:.0f} s, at most {peak:.1f} GiB so far"
        assert status == 0, output[-4000:]
        assert peak <= 16, f"{notebook} took {peak:.1f} GiB"
    print(backbone, json.dumps(report))
    for notebook in CHAIN[:2]:
        checkpoint = project.runs / "tiny" / backbone / "stage1" / notebook / "model.safetensors"
        model = open_clip.create_model(backbone, pretrained=str(checkpoint))
        assert sum(p.numel() for p in model.parameters()) > 38e6
        del model
