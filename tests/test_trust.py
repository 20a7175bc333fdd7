"""Nothing lost, and nothing run that came from a profile, a parameter or the environment."""
import subprocess

import pytest

from conftest import ROOT, STUDY, TINY


def test_a_profile_is_refused_before_a_shell_sees_it(fresh):
    (fresh.folder / "profiles/tiny.yaml").write_text(TINY.replace("[sarclip-mini]", '["$(touch X)sarclip-mini"]'))
    status, output = fresh.call(*STUDY)
    assert status != 0 and "profiles/tiny.yaml, line 2, backbones.0: " in output, output
    (fresh.folder / "profiles/tiny.yaml").write_text(TINY)
    status, output = fresh.call(*STUDY, "backbones=$(touch X)")
    assert status != 0 and "parameter 'backbone' of 03_train_stage2" in output and "Traceback" not in output, output
    assert not list(fresh.folder.glob("**/X*"))


def test_a_folder_of_runs_may_be_called_anything(fresh):
    runs = "my runs $(touch X) 'and' \"so\""
    status, output = fresh.call(*STUDY[:-2], "--until", "data", *STUDY[-2:], SARCLIP_RUNS=runs)
    assert status == 0 and (fresh.folder / runs / "tiny/data/00_data/metrics.json").is_file(), output
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
