"""The project's own order: notebooks and module agree, outputs are there, imports are light."""
import ast
import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from conftest import ROOT

NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def test_export_leaves_no_difference(fresh):
    before = {p: p.read_bytes() for p in (fresh.folder / "sarclip").rglob("*.py")}
    status, output = fresh.call("nbdev_export")
    assert status == 0, output
    after = {p: p.read_bytes() for p in (fresh.folder / "sarclip").rglob("*.py")}
    assert sorted(before) == sorted(after)
    assert [p.name for p in before if before[p] != after[p]] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_notebook_is_committed_executed_and_small(path):
    notebook = nbformat.read(path, 4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert any(c.outputs for c in code), "no executed output; run `make notebooks`"
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    assert path.stat().st_size < 1_500_000
    assert not re.search(r"/(home|root|tmp|Users)/[\w.]", json.dumps([c.outputs for c in code])), "an output shows a path of somebody's machine"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "nbs"], ids=lambda p: p.name)
def test_numbered_notebook_narrates_and_holds_no_library_code(path):
    cells = nbformat.read(path, 4).cells
    assert sum("parameters" in c.metadata.get("tags", []) for c in cells) == 1
    assert not [c.source for c in cells if c.cell_type == "code" and re.search(r"^(def|class) ", c.source, re.M)]
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


PACKAGES = ["core", "data", "captions", "models", "training", "evaluation", "explore", "study", "use"]


def test_packages_import_only_what_stands_before_them():
    wrong = []
    for path in sorted((ROOT / "sarclip").rglob("*.py")):
        package, *inside = path.relative_to(ROOT / "sarclip").with_suffix("").parts
        if not inside: continue    # the package itself, whose lazy names may come from anywhere
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom): continue
            up = len(inside) + 1 - node.level if node.level else 0
            whole = [*(package, *inside)[:up], *(node.module or "").split(".")] if node.level else (node.module or "").split(".")[1:]
            if (node.level or (node.module or "").startswith("sarclip.")) and whole[0] in PACKAGES and PACKAGES.index(whole[0]) > PACKAGES.index(package):
                wrong.append(f"{path.name} imports {'.'.join(whole)}")
    assert wrong == []
    assert sorted(PACKAGES) == sorted(p.name for p in (ROOT / "sarclip").iterdir() if (p / "__init__.py").is_file())


def test_importing_the_package_is_light():
    code = "import sys, sarclip\nassert not {'torch', 'numpy', 'pandas', 'pydantic', 'PIL'} & set(sys.modules)\nassert callable(sarclip.load) and 'torch' in sys.modules\nimport open_clip"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_heavy_imports_are_paid_only_by_their_users():
    modules = [p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for p in (ROOT / "sarclip").rglob("*.py") if p.name not in ("_modidx.py", "__init__.py")]
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\nassert 'umap' not in sys.modules and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    code = "import sys, sarclip.study.run, sarclip.study.tables, sarclip.study.report\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_constraints_pin_every_requirement():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    names = [re.match(r"[\w.-]+", r)[0] for key in ("requirements", "dev_requirements") for r in settings["DEFAULT"][key].split()]
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert [n for n in names if re.sub(r"[-_.]+", "-", n).lower() not in pinned] == []


def test_readme_is_finished_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert not re.search(r"@[A-Z]+@", text)
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text): assert (ROOT / link).exists(), link
