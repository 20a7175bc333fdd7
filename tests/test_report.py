"""The report in a real browser: opened from disk with the network cut, by keyboard, on a desk and a phone, in light and dark."""
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import nbformat.v4 as v4
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from browser import SETTINGS, Browser
from sarclip.core.records import Box, Record, records_to_frame
from sarclip.study.paper import VALUES
from sarclip.study.report import write_report

MODEL = "sarclip-mini/stage1"
ODD = "<u>T-72 & co"    # stands in paths, captions and class names of the made-up run


def step(folder: Path, metrics: dict, cells: dict[str, list[str]] | None = None, figure: str = "") -> None:
    "One finished step with an executed notebook of three cells."
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump({"profile": "made_up", "seed": 0}))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "provenance.json").write_text(json.dumps({"wall_s": 1.0, "cells": cells or {}}))
    sources = ("run = 1", "run.keep(found)", "run.finish()")
    book = v4.new_notebook(cells=[v4.new_code_cell(s, id=f"cell{n}", execution_count=n) for n, s in enumerate(sources, 1)])
    book.cells[0].outputs = [v4.new_output("display_data", {"text/html": "<h4>a table</h4><script>document.title = 'it ran'</script>"})]
    nbformat.write(book, folder / f"{folder.name}.ipynb")
    if figure:
        (folder / "figures").mkdir()
        Image.new("L", (420, 200), 190).save(folder / "figures" / f"{figure}.png")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The page of a made-up run; its numbers mean nothing."
    run = tmp_path_factory.mktemp("runs") / "made_up"
    retrieval = {f"retrieval/sarclip_1m/{c}": float(i) for i, c in enumerate(VALUES[3], 11)}
    retrieval |= {"retrieval/sarclip_1m/mean_recall/ci95": [16.5, 17.5], "retrieval/sarclip_1m/mean_recall/ceiling": 38.0}
    probe = {f"linear_probe/mstar_soc/per_class/{ODD}": 75.0, "linear_probe/mstar_soc/accuracy": 91.25, "linear_head/sar_vsa_present/accuracy": 80.5}
    step(run / MODEL / "04_eval_retrieval", retrieval, {"2": list(retrieval)}, "recall")
    step(run / MODEL / "05_eval_recognition", probe, {}, "confusion_mstar_soc")
    step(run / "data/01_build_dataset", {"dataset/sarclip_1m/test_pairs": 1})
    (run / "data/datasets/sardet_100k").mkdir(parents=True)
    (run / "data/datasets/sources.json").write_text('{"sardet_100k": "generated"}')
    name = f"{ODD}.png"
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(run / "data/datasets/sardet_100k" / name)
    records = records_to_frame([Record("sardet_100k", name, name, size=(60, 40), boxes=(Box("ship", 5, 5, 30, 20),), split="val")])
    pairs = records[["image_id", "dataset", "split"]].assign(caption=f"One {ODD}.", family="simple", facts='[["count","ship",1]]')
    for table, rows in (("records", records), ("pairs", pairs), ("test_pairs", pairs)): rows.to_parquet(run / f"data/01_build_dataset/{table}.parquet")
    return write_report(run)


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda s: f"{s[0]}-{'dark' if s[1] else 'light'}")
def setting(request: pytest.FixtureRequest, browser: Browser, report: Path) -> tuple[Browser, int, bool]:
    "The page, opened once at a width and in one of both colour schemes."
    width, dark = request.param
    browser.open(report, width=width, dark=dark)
    return browser, width, dark


@pytest.fixture
def opened(setting: tuple[Browser, int, bool]) -> Iterator[Browser]:
    "The page with all folds closed; whatever a test does with it, nothing is fetched and the console stays free of errors."
    browser = setting[0]
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = false }); scrollTo(0, 0)")
    yield browser
    assert browser.errors() == [] and browser.requests() == []


def column(browser: Browser, n: int) -> list[str]:
    "Texts of one column of the table of everything measured, rows that a search hides left out."
    return browser.run("return [...document.querySelectorAll('#measured tbody tr:not([hidden])')].map(r => r.cells[arguments[0]].innerText)", n)


def test_report_opens_from_disk_fits_and_can_be_read(setting, tmp_path):
    browser, width, dark = setting
    browser.keys("TAB")
    assert browser.run("return document.activeElement.className") == "skip", "the first thing that tabbing reaches"
    assert browser.run("return document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    browser.picture(tmp_path / "shots" / f"{width}-{dark}.png")
    paper, ink = browser.run("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (light[0] < light[1]) == dark, f"{ink} on {paper}"
    broken = browser.run("return [...document.querySelectorAll('img[src]')].filter(i => i.loading != 'lazy' && !i.naturalWidth).length")
    assert broken == 0
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.faint() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width, "an open fold makes the page scroll sideways"
    assert browser.errors() == [] and browser.requests() == []


def test_sorting_sorts_by_keyboard(opened):
    opened.run("document.querySelector('#all details').open = true")
    opened.run("document.querySelectorAll('#measured thead button')[3].focus()")
    numbers = lambda: [float(text.replace(",", "")) for text in column(opened, 3)]
    opened.keys("ENTER")
    assert numbers() == sorted(numbers()) and len(set(numbers())) > 5
    assert opened.run("return document.activeElement.parentElement.ariaSort") == "ascending"
    opened.keys("ENTER")
    assert numbers() == sorted(numbers(), reverse=True)
    opened.run("document.querySelectorAll('#measured thead button')[6].focus()")    # ceiling: one value, the others are missing
    for _ in range(2):
        opened.keys("ENTER")
        assert column(opened, 6)[0] == "38.00" and set(column(opened, 6)[1:]) == {"–"}, "what is missing stands last"


def test_search_filters(opened):
    opened.run("document.querySelector('#all details').open = true; document.getElementById('search').focus()")
    every = len(column(opened, 0))
    opened.keys("Retrieval i2t_r5")
    assert column(opened, 2) == ["image to text R@5"]
    assert opened.run("return document.querySelector('.search output').innerText") == f"1 of {every}"
    opened.keys(*["BACKSPACE"] * 16)
    assert len(column(opened, 0)) == every


def test_figures_enlarge_by_keyboard(opened):
    opened.run("document.querySelector('.picture button').focus()")
    opened.keys("ENTER")
    assert opened.run("return document.getElementById('large').open")
    larger = "const [i, b] = ['#large img', '.picture img'].map(s => document.querySelector(s)); return i.clientWidth / b.clientWidth"
    assert opened.run(larger) > 1.5, "it is hardly larger than in the page"
    assert opened.run("const i = document.querySelector('#large img'); return i.src.startsWith('data:image/png') && i.alt.length > 10")
    opened.keys("ESCAPE")
    assert not opened.run("return document.getElementById('large').open")
    assert opened.run("return document.activeElement === document.querySelector('.picture button')"), "the focus is lost"


def test_keyboard_reaches_every_part(opened):
    "From the top, tabulator alone gets to a section's link, a scrolling table, a figure, a fold and the search."
    opened.run("document.querySelectorAll('details').forEach(d => d.open = true); document.querySelector('.skip').focus()")
    seen = {"skip"}    # where tabbing begins
    for _ in range(300):
        opened.keys("TAB")
        seen.add(opened.run("const e = document.activeElement; return e.closest('nav') ? 'nav' : e.className || e.id || e.parentElement.className || e.tagName"))
        if "search" in seen: break
    assert {"skip", "nav", "scroll", "picture", "SUMMARY", "search"} <= seen, seen


def test_text_from_data_shows_as_text(opened):
    assert opened.run("return document.querySelectorAll('main u').length") == 0
    assert f"One {ODD}." in opened.run("return document.getElementById('data').innerText")
    assert f"accuracy on {ODD}" in opened.run("return document.getElementById('measured').textContent")


def test_a_row_that_was_not_run_is_one_line(opened, setting):
    heights = opened.run("return [...document.querySelectorAll('#tables table')[1].tBodies[0].rows].map(r => r.clientHeight)")
    assert len(heights) == 23 and (len(set(heights)) == 1 or setting[1] < 600), "a phone breaks long names"
    assert opened.run("return document.getElementById('tables').innerText").count("not run") < 40
    assert "80.50 (15 of 25 classes)" in opened.run("return document.getElementById('tables').innerText")


def test_three_hops_from_a_number_to_its_cell(opened, setting, report):
    "The last test: it leaves the page."
    browser, width, dark = setting
    links = browser.run("return [...document.querySelectorAll('#headline tbody tr:first-child a')].map(a => a.getAttribute('href'))")
    assert json.loads((report.parent / links[0]).read_text())["retrieval/sarclip_1m/mean_recall"] == 17.0
    file, _, cell = links[1].partition("#")
    browser.open(f"{(report.parent / file).resolve().as_uri()}#{cell}", width=width, dark=dark)
    assert "run.keep(found)" in browser.run("return document.querySelector(':target').innerText"), "another cell than the one that measured it"
    assert browser.run("return document.querySelector('h4').innerText") == "a table" and browser.faint() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width, "the notebook's page scrolls sideways"
    assert browser.run("return document.title") == "04_eval_retrieval", "a script of an output ran"
    assert browser.requests() == []
    browser.clear()    # the console says that the page's policy kept that script from running
