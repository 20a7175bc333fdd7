"""A short run of the fuzzing: some mutants of each format, in a process of its own with its memory limited. `make fuzz` makes thousands."""
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rasterio", reason="the fuzzing compares pixels with GDAL's, which comes with sarclip[geo]")


def test_no_damaged_file_is_read_wrong_or_ends_in_a_traceback():
    ended = subprocess.run([sys.executable, str(Path(__file__).with_name("fuzz.py")), "--mutants", "20"], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
    rows = [line for line in ended.stdout.splitlines() if line.split()[-1:] == ["0"]]
    assert len(rows) > 45, ended.stdout    # every format went through
