"""Shared by all tests: a copy of the project to run in, and the way to the real data."""
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("nbs", "sarclip", "profiles", "Snakefile", "data_manifest.yaml", "settings.ini")

TINY = (ROOT / "tests/profiles/mini.yaml").read_text(encoding="utf-8")    # the smallest study


class Project:
    "A copy of the project in a folder of its own, and commands run in it."

    def __init__(self, folder: Path):
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / part)
        (folder / "profiles" / "tiny.yaml").write_text(TINY)
        self.runs = folder / "runs"

    def start(self, *words: str, cwd: str = ".", **environment: str) -> subprocess.Popen:
        "Begin a command with this copy's module first on the path."
        keep = {k: v for k, v in os.environ.items() if k not in ("SARCLIP_RUNS", "SARCLIP_DATA", "SARCLIP_PROFILES")}
        env = keep | {"PYTHONPATH": str(self.folder), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "MPLBACKEND": "Agg"}
        return subprocess.Popen(words, cwd=self.folder / cwd, env=env | environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, start_new_session=True)

    def call(self, *words: str, cwd: str = ".", **environment: str) -> tuple[int, str]:
        "Run a command to its end; exit status and everything it printed."
        process = self.start(*words, cwd=cwd, **environment)
        output, _ = process.communicate(timeout=1500)
        return process.returncode, output

    def study(self, *words: str) -> tuple[int, str]:
        "`make study` without the virtual environment."
        return self.call(*STUDY, *words)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that share the finished study run in one process, or each process would make it anew.

    As each test is found: once all are, pytest-xdist has read the groups already.
    """
    if "studied" in item.fixturenames: item.add_marker(pytest.mark.xdist_group("studied"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "The longest group first, so that at the end no process waits for it."
    items.sort(key=lambda item: "studied" not in item.fixturenames)


STUDY = ("snakemake", "--cores", "all", "--nolock", "--rerun-incomplete", "--keep-going", "--quiet", "host", "reason", "rules", "--config", "profile=tiny")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    "One copy for all tests that only add to it."
    return Project(tmp_path_factory.mktemp("project") / "sarclip")


@pytest.fixture(scope="session")
def studied(project: Project) -> Project:
    "The copy after a whole tiny study."
    status, output = project.study()
    assert status == 0, output[-4000:]
    return project


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    "A copy for one test alone."
    return Project(tmp_path / "sarclip")


@pytest.fixture
def one_thread() -> Iterator[None]:
    "Sums in one order, whatever the machine."
    import torch    # heavy: only the tests of training pay for it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    "The folder of the real archives; the test says so when it is not there."
    folder = Path(os.environ.get("SARCLIP_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mstar_15_16_17deg.tar").is_file():
        pytest.skip(f"real data not found in {folder}; set SARCLIP_DATA to the folder of the archives")
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    "A headless Chromium without network, one for each process of tests; a test that asks for it is skipped where it is missing."
    chromium = Browser(tmp_path_factory.mktemp("browser"))
    yield chromium
    chromium.close()
