"""The project's own order: notebooks and module agree, outputs are there, imports are light."""
import ast
import configparser
import graphlib
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
    shown = json.dumps([c.outputs for c in code])
    own = [place for place in (str(ROOT), sys.prefix) if place in shown]    # wherever this machine keeps its projects
    assert not own and not re.search(r"/(home|root|tmp|Users)/[\w.]", shown), "an output shows a path of somebody's machine"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "nbs"], ids=lambda p: p.name)
def test_numbered_notebook_narrates_and_holds_no_library_code(path):
    cells = nbformat.read(path, 4).cells
    assert sum("parameters" in c.metadata.get("tags", []) for c in cells) == 1
    assert not [c.source for c in cells if c.cell_type == "code" and re.search(r"^(def|class) ", c.source, re.M)]
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


def numbered() -> list[Path]: return [p for p in NOTEBOOKS if p.parent.name == "nbs"]


def broken(faults: dict[str, list]) -> dict[str, list]:
    "Those that break a rule, with what breaks it."
    return {name: found for name, found in faults.items() if found}


def test_numbered_notebooks_cells_are_short():
    """Twelve lines of code at most; papermill's parameters are one a line, in one cell."""
    faults = {}
    for path in numbered():
        code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])]
        faults[path.stem] = [c.source for c in code if len(c.source.splitlines()) > 12]
    assert broken(faults) == {}


def test_numbered_notebooks_lines_fit_a_page():
    assert broken({p.stem: [line for c in nbformat.read(p, 4).cells for line in c.source.splitlines() if len(line) > 100] for p in numbered()}) == {}


def library_code(source: str) -> list[str]:
    "What belongs into a module: definitions, lambdas, regular expressions, JSON taken apart, names that are private."
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda): found.append(type(node).__name__)
        if isinstance(node, ast.Import) and {"re", "json"} & {name.name for name in node.names}: found.append("import re or json")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) == ("json", "loads") or node.value.id == "re" or node.attr == "extract": found.append(f"{node.value.id}.{node.attr}")
            if node.attr.startswith("_"): found.append(node.attr)
    return found


def test_library_code_is_recognised():
    assert library_code("x = run.metrics['a/b']; figure = recall(x)") == []
    for source in ("def f(): pass", "class A: pass", "f = lambda x: x", "import re", "json.loads(x)", "re.sub(a, b, c)", "labels.extract(r)", "run._files"): assert library_code(source), source


def test_numbered_notebooks_hold_no_library_code():
    faults = {}
    for path in numbered():
        code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        faults[path.stem] = [fault for source in code for fault in library_code(source)]
    assert broken(faults) == {}


def modules() -> dict[str, Path]: return {p.relative_to(ROOT / "sarclip").with_suffix("").as_posix(): p for p in sorted((ROOT / "sarclip").rglob("*.py")) if p.name != "_modidx.py"}


def test_modules_are_short_and_their_lines_fit():
    assert broken({name: [n] for name, path in modules().items() if (n := len(path.read_text().splitlines())) > 400}) == {}
    written = re.compile(r"#|__all__|\"\"\"|           '")    # nbdev's own lines: where a cell came from, what a module exports, its title
    assert broken({name: [line for line in path.read_text().splitlines() if len(line) > 120 and not written.match(line)] for name, path in modules().items()}) == {}


def imported(name: str, path: Path) -> set[str]:
    "The modules of this project that one imports, wherever in it the import stands."
    package, found = name.split("/")[:-1], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom): continue
        inside = node.level > 0
        if not inside and (node.module or "").split(".")[0] != "sarclip": continue
        above = package[: len(package) - node.level + 1] if inside else []
        parts = (node.module or "").split(".") if node.module else []
        whole = "/".join(above + parts if inside else parts[1:])
        found |= {whole, *(f"{whole}/{alias.name}" for alias in node.names)}    # a module itself, or modules of a package
    return found & set(modules())


def test_modules_do_not_import_each_other_in_circles():
    graph = {name: imported(name, path) for name, path in modules().items() if path.name != "__init__.py"}
    assert "evaluation/features" in graph["evaluation/recognition"] and "core/files" in graph["study/run"]
    tuple(graphlib.TopologicalSorter(graph).static_order())    # CycleError names the circle
    with pytest.raises(graphlib.CycleError): tuple(graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


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
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\nassert not {{'umap', 'numba', 'inflect'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    code = "import sys, sarclip.study.run, sarclip.study.tables, sarclip.study.report\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.xdist_group("shown")
def test_groups_reach_the_scheduler(request):
    "pytest 9.2 names tests in a way that pytest-xdist 3.8 does not reach: each process then made the shared study anew."
    if not getattr(request.config.option, "loadgroup", False): pytest.skip("not under --dist loadgroup")
    assert request.node.nodeid.endswith("@shown")


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
