"""Notebook 07 in JupyterLab, in a real browser: the widget draws, and the kernel answers it."""
import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import Browser
from conftest import Project


@contextmanager
def lab(project: Project) -> Iterator[str]:
    "JupyterLab on a project's notebooks; its address."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = project.start(
        "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=",
        "--expose-app-in-browser", "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        cwd="nbs", JUPYTER_CONFIG_DIR=str(project.folder / ".jupyter"), MPLBACKEND="module://matplotlib_inline.backend_inline")
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, process.stdout.read()[-2000:]
                time.sleep(.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


def for_lab(project: Project, profile: str) -> str:
    "A copy of notebook 07 without outputs, for a profile; its name."
    notebook = json.loads((project.folder / "nbs" / "07_explore.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code": continue
        cell.update(outputs=[], execution_count=None)
        if "parameters" in cell["metadata"].get("tags", []): cell["source"] = "".join(cell["source"]).replace('profile = "mini"', f'profile = "{profile}"')
    (project.folder / "nbs" / "07_lab.ipynb").write_text(json.dumps(notebook))
    return "07_lab.ipynb"


def look_at_07(browser: Browser, project: Project, profile: str, shots: Path) -> None:
    "Run 07 in JupyterLab, lasso every point, ask a phrase, pick a point."
    gallery = "[...document.querySelectorAll('.jp-OutputArea .widget-html b')].map((b) => b.textContent).join()"
    with lab(project) as address:
        browser.open(f"{address}/lab/tree/{for_lab(project, profile)}?reset", height=1000)
        browser.wait("window.jupyterapp && document.querySelector('.jp-Notebook .jp-CodeCell')", 120)
        kernel = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        accept = "document.querySelector('.jp-Dialog .jp-mod-accept')?.click()"    # JupyterLab asks which kernel
        browser.wait(f"({accept}, {kernel}) === 'idle'", 120)
        browser.run("jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ran = true })")
        browser.wait("window.ran", 600)
        browser.wait("document.querySelectorAll('.jp-OutputArea canvas').length >= 3", 60)
        browser.run("document.querySelector('.jp-OutputArea canvas').scrollIntoView({block: 'center'})")
        time.sleep(2)    # JupyterLab and the first frames settle
        browser.picture(shots / "drawn.png")

        x, y, right, bottom = browser.run("const b = document.querySelector('.jp-OutputArea canvas').getBoundingClientRect();"
                                          "return [b.x, b.y, b.right, b.bottom]")
        browser.run("document.querySelectorAll('.jp-OutputArea .jp-OutputArea-output button')[1].click()")    # the lasso
        browser.drag([(x + 5, y + 5), (right - 5, y + 5), (right - 5, bottom - 5), (x + 5, bottom - 5), (x + 5, y + 8)])
        browser.wait(f"{gallery}.includes('Gallery:')", 30)
        browser.picture(shots / "lasso.png")

        browser.run("const i = document.querySelector('.jp-OutputArea input[type=text]'); i.scrollIntoView({block: 'center'}); i.focus()")
        browser.keys(*"two ships", "ENTER")
        browser.wait(f"{gallery}.includes('Gallery: 12 images')", 60)
        assert browser.run("return document.querySelectorAll('.jp-OutputArea .widget-html figure img').length") == 12
        browser.picture(shots / "asked.png")

        wrong = [message for message in browser.errors() if "jscatter" in message or "widget" in message.lower() or "WebGL" in message]
        assert wrong == []


def test_07_draws_and_answers_in_jupyterlab(browser: Browser, studied: Project, tmp_path: Path) -> None:
    look_at_07(browser, studied, "tiny", tmp_path / "shots")
