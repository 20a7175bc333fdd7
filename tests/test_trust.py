"""Nothing lost, and nothing run that came from a profile, a parameter or the environment."""
import os
import signal
import subprocess
import time

import nbformat
import pytest

from conftest import ROOT, STUDY, TINY, Project

CONFIG = STUDY.index("--config")
UNTIL_DATA = (*STUDY[:CONFIG], "--until", "data", *STUDY[CONFIG:])


def test_a_profile_is_refused_before_a_shell_sees_it(fresh):
    (fresh.folder / "profiles/tiny.yaml").write_text(TINY.replace("[sarclip-mini]", '["$(touch X)sarclip-mini"]'))
    status, output = fresh.call(*STUDY)
    assert status != 0 and "profiles/tiny.yaml, line 4, backbones.0: " in output, output
    (fresh.folder / "profiles/tiny.yaml").write_text(TINY)
    status, output = fresh.call(*STUDY, "backbones=$(touch X)")
    assert status != 0 and "parameter 'backbone' of 03_train_stage2" in output and "Traceback" not in output, output
    assert not list(fresh.folder.glob("**/X*"))


@pytest.mark.parametrize("given, meant", [("my data", f"{ROOT}/my data"), ("/my data/of mine", "/my data/of mine"), ("near", f"{ROOT}/near")])
def test_make_takes_paths_with_spaces(given, meant):
    shown = subprocess.run(["make", "--no-print-directory", "--eval=show: ; @echo \"$$SARCLIP_DATA|$$BACKBONES\"", "show", f"DATA={given}", "BACKBONES=$$(touch X) a"],
                           cwd=ROOT, text=True, capture_output=True, check=True)
    assert shown.stdout == f"{meant}|$(touch X) a\n"


@pytest.mark.parametrize("words, message", [
    (["04_eval_retrieval", "--run_dir", "/dev/null"], "✗ parameter 'run_dir' of 04_eval_retrieval: /dev/null is no folder"),
    (["03_train_stage2", "--backbone", "../x"], "✗ parameter 'backbone' of 03_train_stage2"),
    (["04_eval_retrieval", "--init", "file-x/../../../elsewhere"], "✗ parameter 'init' of 04_eval_retrieval"),
    (["00_data", "--profile", "../tiny"], "✗ profile '../tiny' is unknown")])
def test_a_command_that_asks_for_the_impossible_is_answered_in_a_sentence(project, words, message):
    status, output = project.call("sarclip-run", *words)
    assert status == 1 and message in output and "Traceback" not in output, output


def plant(project: Project, notebook: str, source: str) -> None:
    "Put a cell behind the one that opens the run."
    path = project.folder / f"nbs/{notebook}.ipynb"
    found = nbformat.read(path, 4)
    opens = next(i for i, cell in enumerate(found.cells) if cell.cell_type == "code" and ("Run(" in cell.source or "open_run(" in cell.source))
    found.cells.insert(opens + 1, nbformat.v4.new_code_cell(source))
    nbformat.write(found, path)


def test_two_at_once_are_told_apart_and_a_killed_one_is_followed(fresh):
    plant(fresh, "00_data", "import os, time; time.sleep(float(os.environ.get('PAUSE', 0)))")
    step = fresh.runs / "tiny/data/00_data"
    first = fresh.start("papermill", "nbs/00_data.ipynb", "first.ipynb", "-p", "profile", "tiny", PAUSE="300")
    deadline = time.monotonic() + 120
    while not (step / "unfinished/params.yaml").exists():
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
        time.sleep(0.1)
    status, output = fresh.call("papermill", "nbs/00_data.ipynb", "second.ipynb", "-p", "profile", "tiny")
    assert status != 0 and "00_data in runs/tiny/data/00_data is being run already, by process" in output, output
    os.kill(first.pid, signal.SIGKILL)    # its kernel lives on for a moment, and holds the lock
    first.wait()
    (step / "unfinished/.table.x.part").touch()    # litter
    status, output = fresh.call("sarclip-run", "00_data", "--profile", "tiny")
    assert status == 0 and (step / "metrics.json").is_file(), output
    assert not [path for path in fresh.runs.rglob("*") if path.name.endswith((".part", ".running.ipynb")) or path.name == "unfinished"]


def test_a_rerun_that_fails_takes_nothing_away_whatever_the_folder_of_runs_is_called(fresh):
    runs = "my runs $(touch X) 'and' \"so\""
    status, output = fresh.call(*UNTIL_DATA, SARCLIP_RUNS=runs)
    assert status == 0, output
    step = fresh.folder / runs / "tiny/data/00_data"
    results = {path.name: path.read_bytes() for path in step.iterdir() if path.is_file() and not path.name.endswith(".lock")}
    plant(fresh, "00_data", "run.dir.joinpath('problems.json').write_text('half'); 1 / 0")
    status, output = fresh.call(*STUDY, SARCLIP_RUNS=runs)
    assert status != 0 and "ZeroDivisionError: division by zero" in output and "▶ 01_build_dataset" not in output, output
    assert results == {path.name: path.read_bytes() for path in step.iterdir() if path.is_file() and not path.name.endswith(".lock")}
    assert {"00_data.ipynb", "params.yaml", "problems.json"} == {path.name for path in (step / "unfinished").iterdir()}
    assert any(cell.get("outputs") for cell in nbformat.read(step / "unfinished/00_data.ipynb", 4).cells)    # executed so far, and to be read
    status, output = fresh.call("sarclip-report", "tiny", SARCLIP_RUNS=runs)
    assert "a later run did not finish, earlier results stand: 00_data" in output, output
    assert not list(fresh.folder.glob("**/X*"))


def test_a_class_may_be_called_anything():
    import numpy as np

    from sarclip.core.records import Record, records_to_frame
    from sarclip.evaluation.recognition import Recognition, confusion_figure
    from sarclip.study.pictures import class_figure

    classes = ["$x^$", "b$_{"]
    found = Recognition(tuple(classes), np.arange(2), np.eye(2))
    confusion_figure(found).canvas.draw()
    records = records_to_frame(Record("own", f"own/{n}", f"{n}.png", labels=(label,)) for n, label in enumerate("ab"))
    class_figure(records, {"own": dict(zip("ab", classes))}).canvas.draw()
