"""The walks of CONTRIBUTING.md, taken in a copy of the project: few files, and the change is there."""
import json
import re

import nbformat
import pytest

from conftest import ROOT, Project


def edit(project: Project, notebook: str, *changes: tuple[str, str]) -> None:
    "Replace text in a notebook's cells, as a hand would."
    path = project.folder / "nbs" / "api" / notebook
    content = nbformat.read(path, 4)
    for before, after in changes:
        cells = [cell for cell in content.cells if cell.cell_type == "code" and before in cell.source]
        assert cells, f"{notebook} no longer says {before!r}"
        cells[0].source = cells[0].source.replace(before, after, 1)
    nbformat.write(content, path)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    "What a copy of the project says after a loss, a backbone, a caption and a recognition task were added to it."
    project = Project(tmp_path_factory.mktemp("walked") / "sarclip")
    edit(project, "training/02_loss.ipynb", ("LOSSES: dict", '''def doubled_loss(image: Tensor, text: Tensor, scale: Tensor, facts: list[str]) -> Tensor:
    "Twice the paper's."
    return 2 * clip_loss(image, text, scale, facts)

LOSSES: dict'''), ('"clip": clip_loss,', '"clip": clip_loss,\n    "doubled": doubled_loss,'))
    edit(project, "core/05_parameters.ipynb", ('Literal["clip", "facts"]', 'Literal["clip", "facts", "doubled"]'))
    configs = project.folder / "sarclip" / "models" / "model_configs"
    config = json.loads((configs / "sarclip-mini.json").read_text())
    config["vision_cfg"]["width"] = 24
    (configs / "sarclip-medium.json").write_text(json.dumps(config))
    edit(project, "training/03_recipe.ipynb",
         ('    "sarclip-mini": _FROM_NOTHING', '    "sarclip-medium": {"lr": 1e-3, "epochs": 40, "batch_size": 32},\n    "sarclip-mini": _FROM_NOTHING'))
    edit(project, "captions/00_templates.ipynb",
         ('    "simple-6":', '    "simple-11": "Seen by radar: {things}, in {an_image}.",\n    "simple-6":'))
    manifest = project.folder / "data_manifest.yaml"
    manifest.write_text(manifest.read_text() + """
  mstar_tanks:
    title: MSTAR, two tanks
    dataset: mstar
    train: {label: [T62, T72], depression: 17}
    test: {label: [T62, T72], depression: 15}
    classes: [T62, T72]
""")
    for words in (("nbdev_export",), ("python", "-c", SAY)):
        status, output = project.call(*words)
        assert status == 0, output[-2000:]
    return json.loads(output.strip().splitlines()[-1])


SAY = """
import json
from sarclip.captions.templates import template_ids
from sarclip.core.settings import check
from sarclip.data.manifest import load_manifest
from sarclip.models.factory import create
from sarclip.training.recipe import configure, recipe
print(json.dumps({
    "loss": configure(check("03_train_stage2", {"loss": "doubled"})).loss,
    "backbone": [create("sarclip-medium").backbone, recipe("sarclip-medium").epochs],
    "caption": ["simple-11" in template_ids(profile)["simple"] for profile in ("extended", "paper")],
    "recognition task": load_manifest().evaluations["mstar_tanks"].classes,
}))
"""


@pytest.mark.parametrize("walk, there", [("loss", "doubled"), ("backbone", ["sarclip-medium", 40]), ("caption", [True, False]), ("recognition task", ["T62", "T72"])])
def test_walk_leads_there(walked, walk, there):
    assert walked[walk] == there


def test_every_place_that_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    places = re.findall(r"`((?:nbs|sarclip|tests|bench|profiles|docs)/[\w./*-]+|data_manifest\.yaml|Snakefile|settings\.ini)`", text)
    assert len(places) > 15
    assert [place for place in places if not list(ROOT.glob(place.rstrip("/")))] == []


@pytest.mark.parametrize("walk", ["dataset", "caption", "loss", "backbone", "recognition task", "evaluator", "table", "picture", "explorer"])
def test_a_walk_takes_at_most_three_files(walk):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(f"| {walk} |")]
    assert len(rows) == 1
    assert 1 <= len(set(re.findall(r"`((?:nbs|sarclip)/[\w./*-]+|data_manifest\.yaml)`", rows[0].split("|")[2]))) <= 3
