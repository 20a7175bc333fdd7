"""Fetching against a real server on this machine, verifying, unpacking; and a dataset of a user's own through the study's first notebooks."""
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from sarclip.data.fetch import BLOCK, Patience, fetch, fetch_file, verify, verify_table
from sarclip.core.files import unpack
from sarclip.data.formats.class_folders import write_class_folders
from sarclip.data.formats.coco import write_coco
from sarclip.data.formats.common import make_record
from sarclip.data.manifest import Dataset, Release, ReleaseFile, load_manifest
from sarclip.data.prepare import prepare
from sarclip.data.readers import READERS
from sarclip.core.records import Box

BODY = np.random.default_rng(0).bytes(1_500_000)
NO_WAIT = Patience(attempts=4, wait=0, timeout=5)


class Handler(http.server.BaseHTTPRequestHandler):
    "Serves `server.files` with ranges; `server.script` holds what goes wrong with the next answers."

    def do_GET(self):
        s = self.server
        s.asked.append(dict(self.headers))
        step = s.script.pop(0) if s.script else {}
        body = s.files.get(self.path)
        if "status" in step or body is None: return self.send_error(step.get("status", 404))
        start, wanted = 0, self.headers.get("Range")
        if wanted and not step.get("no_ranges") and self.headers.get("If-Range", s.tag) == s.tag: start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start: self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if not step.get("no_length"): self.send_header("Content-Length", str(len(body) - start))
        if s.tag: self.send_header("ETag", s.tag)
        self.end_headers()
        self.wfile.write(body[start:step.get("cut", len(body))])
        self.wfile.flush()
        if "stall" in step: time.sleep(step["stall"])

    def log_message(self, *words): pass


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.handle_error = lambda *words: None    # a client that has seen enough is no error
    httpd.files, httpd.script, httpd.asked, httpd.tag = {"/a.bin": BODY}, [], [], '"v1"'
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def remote(server, name="a.bin", content=BODY, **changes) -> ReleaseFile:
    return ReleaseFile(**{"name": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "url": f"{server.url}/{name}"} | changes)


def names(folder: Path) -> list[str]: return sorted(p.name for p in folder.iterdir())


def ranges(server) -> list[int]: return [int(h["Range"][6:-1]) if "Range" in h else 0 for h in server.asked]


def test_whole_file_arrives_and_is_not_asked_for_again(server, tmp_path):
    for _ in range(2): assert fetch_file(remote(server), tmp_path).read_bytes() == BODY
    assert len(server.asked) == 1 and names(tmp_path) == ["a.bin"]


def test_goes_on_where_the_connection_broke(server, tmp_path):
    server.script = [{"cut": 400_000}, {"cut": 900_000}, {"cut": 1_200_000}]
    assert fetch_file(remote(server), tmp_path, patience=NO_WAIT).read_bytes() == BODY
    for cut, start in zip([400_000, 900_000, 1_200_000], ranges(server)[1:]): assert cut - BLOCK < start <= cut
    assert names(tmp_path) == ["a.bin"]


def test_part_is_kept_for_the_next_run(server, tmp_path):
    server.script = [{"cut": 700_000}] * 4
    with pytest.raises(ConnectionError, match=r"a.bin could not be fetched in 4 attempts .* bytes are kept in .*a.bin.part, fetch again"): fetch_file(remote(server), tmp_path, patience=NO_WAIT)
    assert "a.bin" not in names(tmp_path) and 700_000 - BLOCK < (tmp_path / "a.bin.part").stat().st_size <= 700_000
    server.asked.clear()
    assert fetch_file(remote(server), tmp_path, patience=NO_WAIT).read_bytes() == BODY and ranges(server)[0] > 600_000


def test_process_killed_in_the_middle_leaves_a_part_that_the_next_one_completes(server, tmp_path):
    server.script = [{"cut": 600_000, "stall": 30}]
    code = ("import sys; from pathlib import Path; from sarclip.data.fetch import fetch_file; from sarclip.data.manifest import ReleaseFile\n"
            "fetch_file(ReleaseFile(**eval(sys.argv[1])), Path(sys.argv[2]))")
    process = subprocess.Popen([sys.executable, "-c", code, repr(remote(server).model_dump()), str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    part = tmp_path / "a.bin.part"
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 400_000) and time.monotonic() < deadline: time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "a.bin" not in names(tmp_path) and part.stat().st_size > 400_000
    assert fetch_file(remote(server), tmp_path, patience=NO_WAIT).read_bytes() == BODY and ranges(server)[1] > 400_000


@pytest.mark.parametrize("tag", ['"v1"', ""])
def test_server_without_ranges_begins_anew(server, tmp_path, tag):
    server.tag, server.script = tag, [{"cut": 500_000}, {"no_ranges": True}]
    assert fetch_file(remote(server), tmp_path, patience=NO_WAIT).read_bytes() == BODY


def test_two_versions_are_never_glued_together(server, tmp_path):
    new = BODY[::-1]
    server.script = [{"cut": 500_000}] * 4
    with pytest.raises(ConnectionError): fetch_file(remote(server, sha256=None, bytes=None), tmp_path, patience=NO_WAIT)
    server.files["/a.bin"], server.tag = new, '"v2"'
    assert fetch_file(remote(server, sha256=None, bytes=None), tmp_path, patience=NO_WAIT).read_bytes() == new    # nothing but the tag tells them apart


def test_without_tag_and_checksum_nothing_is_resumed(server, tmp_path):
    server.tag, server.script = "", [{"cut": 500_000}]
    assert fetch_file(remote(server, sha256=None, bytes=None), tmp_path, patience=NO_WAIT).read_bytes() == BODY and ranges(server) == [0, 0]


@pytest.mark.parametrize("extra, asked", [(b"", 1), (b"more than there is", 2)])
def test_part_that_is_whole_already_or_too_long(server, tmp_path, extra, asked):
    (tmp_path / "a.bin.part").write_bytes(BODY + extra)
    assert fetch_file(remote(server), tmp_path, patience=NO_WAIT).read_bytes() == BODY and len(server.asked) == asked


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_passing_failures_are_tried_again(server, tmp_path, status):
    server.script = [{"status": status}, {"status": status}]
    assert fetch_file(remote(server), tmp_path, patience=NO_WAIT).read_bytes() == BODY


def test_server_that_stays_down_is_named_with_what_it_said(server, tmp_path):
    server.script = [{"status": 500}] * 4
    with pytest.raises(ConnectionError, match="in 4 attempts .the server answered 500 Internal Server Error.; try again later"): fetch_file(remote(server), tmp_path, patience=NO_WAIT)
    assert names(tmp_path) == [] and len(server.asked) == 4


def test_nobody_listens(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="a.bin could not be fetched in 2 attempts"): fetch_file(remote(server), tmp_path, patience=Patience(2, 0, 2))


def test_stalled_connection_counts_as_broken(server, tmp_path):
    server.script = [{"cut": 300_000, "stall": 5}]
    assert fetch_file(remote(server), tmp_path, patience=Patience(2, 0, 1)).read_bytes() == BODY


@pytest.mark.parametrize("status", [403, 404, 410])
def test_final_refusals_are_not_tried_again(server, tmp_path, status):
    server.script = [{"status": status}]
    with pytest.raises(FileNotFoundError, match=f"a.bin answered {status} .*owner's page"): fetch_file(remote(server), tmp_path, patience=NO_WAIT)
    assert len(server.asked) == 1 and names(tmp_path) == []


def test_wrong_content_is_named_and_set_aside(server, tmp_path):
    server.files["/a.bin"] = BODY[:-1] + b"?"
    with pytest.raises(ValueError, match=rf"a.bin is not the file .*a.bin.wrong has the wrong checksum, expected sha256 {remote(server).sha256}, found [0-9a-f]{{64}}"): fetch_file(remote(server), tmp_path)
    assert names(tmp_path) == ["a.bin.wrong"]
    server.files["/a.bin"] = BODY
    assert fetch_file(remote(server), tmp_path).read_bytes() == BODY


def test_md5_is_checked_where_there_is_no_sha256(server, tmp_path):
    good = {"sha256": None, "md5": hashlib.md5(BODY).hexdigest()}
    assert fetch_file(remote(server, **good), tmp_path / "good").read_bytes() == BODY
    with pytest.raises(ValueError, match="expected md5 0000"): fetch_file(remote(server, **good | {"md5": "0" * 32}), tmp_path / "bad")


@pytest.mark.parametrize("step", [{}, {"no_length": True}])
def test_login_page_instead_of_the_archive(server, tmp_path, step):
    server.files["/a.bin"], server.script = b"<html>please log in</html>", [step]
    with pytest.raises(ValueError, match="26 bytes( or more)?, expected 1,500,000"): fetch_file(remote(server), tmp_path)
    assert "a.bin" not in names(tmp_path)


def test_endless_answer_is_stopped(server, tmp_path):
    server.files["/a.bin"], server.script = BODY * 4, [{"no_length": True}]
    with pytest.raises(ValueError, match="bytes or more, expected 1,500,000"): fetch_file(remote(server), tmp_path)
    assert "a.bin" not in names(tmp_path) and (tmp_path / "a.bin.part").stat().st_size < 2_000_000


def test_no_room(server, tmp_path, monkeypatch):
    monkeypatch.setattr("sarclip.data.fetch.shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="a.bin needs 1,500,000 more bytes in .*, which has 10 free"): fetch_file(remote(server), tmp_path)


def test_file_that_somebody_put_there_is_never_touched(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match="a.bin has 4 bytes, expected 1,500,000 with sha256 [0-9a-f]{64}; remove it"): fetch_file(remote(server), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"mine" and not server.asked


def test_mirror_comes_first_and_is_checked(server, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "a.bin").write_bytes(BODY)
    assert fetch_file(remote(server), tmp_path / "data", mirror, offline=True).read_bytes() == BODY and not server.asked
    (mirror / "a.bin").write_bytes(BODY[::-1])
    with pytest.raises(ValueError, match=f"the mirror's copy is not the file: {mirror}/a.bin has the wrong checksum"): fetch_file(remote(server), tmp_path / "data2", mirror)
    assert names(tmp_path / "data2") == [] and not server.asked


def test_offline_asks_nobody(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"offline: a.bin is not in {tmp_path}, and nothing is fetched; bring it there from {server.url}/a.bin, or set offline = false"):
        fetch_file(remote(server), tmp_path, offline=True)
    assert not server.asked


# ---------------------------------------------------------------- verify

def dataset(release: Release, **changes) -> Dataset:
    return Dataset(**{"name": "mine", "title": "Mine", "year": 2024, "task": "cls", "role": "sar", "page": "https://example.org", "licence": "CC0", "citation": "me", "sensor": {},
                      "classes": {"a": "airship", "b": "barge"}, "crop": None, "tone": "none", "releases": [release],
                      "split": load_manifest().datasets["rsscn7"].split} | changes)


def chips(folder: Path, n: int = 10) -> Path:
    paths = [f"{label}/{i:02}.png" for label in "ab" for i in range(n)]
    write_class_folders(folder, ((make_record("mine", p, labels=(p[0],)), np.full((8, 8), 9, np.uint8)) for p in paths))
    return folder


def archive(folder: Path, path: Path) -> ReleaseFile:
    with tarfile.open(path, "w") as tar: tar.add(folder, "mine")
    return ReleaseFile(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), bytes=path.stat().st_size)


def test_verify_tells_the_four_states_with_numbers(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    files = [archive(chips(tmp_path / "one"), data / "one.tar"), archive(chips(tmp_path / "two", 3), data / "two.tar")]
    mine = dataset(Release(name="tars", kind="repack", reader="class_folders", folder="mine", files=files, manual="ask", images=20))
    assert (verify(mine, data).status, verify(mine, data).files_found, verify(mine, data).images_found) == ("complete", 2, None)
    two = (data / "two.tar").read_bytes()
    (data / "two.tar").write_bytes(two[:600] + b"!" + two[601:])
    assert verify(mine, data).status == "corrupt" and "two.tar has the wrong checksum" in verify(mine, data).remark
    (data / "two.tar").write_bytes(two[:600])
    assert verify(mine, data).status == "corrupt" and f"two.tar has 600 bytes, expected {len(two):,}" in verify(mine, data).remark
    (data / "two.tar").rename(data / "two.tar.part")
    assert verify(mine, data).status == "partial" and "two.tar.part holds 600 bytes" in verify(mine, data).remark
    (data / "two.tar.part").unlink()
    assert (verify(mine, data).status, verify(mine, data).files_found, verify(mine, data).files_expected) == ("partial", 1, 2)
    (data / "one.tar").unlink()
    assert verify(mine, data).status == "absent"
    table = verify_table([verify(mine, data)])
    assert table.loc[0, "files"] == "0 of 2" and "one.tar is not in" in table.loc[0, "remark"]


@pytest.mark.parametrize("numbers, removed, status, remark", [
    ({"images": 20}, 0, "complete", ""), ({"images": 20}, 1, "partial", "19 images found, expected 20"), ({"images": 12}, 0, "corrupt", "20 images found, expected 12"),
    ({"parts": {"train": 20}}, 0, "partial", "train images found, expected 20"), ({}, 0, "unverified", "no checksum of it is known")])
def test_folder_is_judged_by_its_images(tmp_path, numbers, removed, status, remark):
    folder = chips(tmp_path / "mine")
    for path in sorted(folder.rglob("*.png"))[:removed]: path.unlink()
    found = verify(dataset(Release(name="own", kind="owner", reader="class_folders", manual="mine", **numbers)), tmp_path)
    assert (found.status, found.images_found) == (status, 20 - removed) and remark in found.remark
    assert sum(n for _, n in found.parts.values()) == 20 - removed


def test_folder_its_reader_cannot_read_is_corrupt(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("no image here")
    assert verify(dataset(Release(name="own", kind="owner", reader="class_folders", manual="mine", images=20)), tmp_path).status in ("corrupt", "partial")


def test_folder_without_its_images_is_not_complete(tmp_path):
    "The annotations name every image; the images are away, or pages of a login form."
    items = [(make_record("mine", f"JPEGImages/train/{n}.png", size=(8, 8), task="det", boxes=(Box("a", 1, 1, 5, 5),), split="train"), np.zeros((8, 8), np.uint8)) for n in range(5)]
    write_coco(tmp_path / "mine", items)
    mine = dataset(Release(name="own", kind="owner", reader="coco", manual="mine", images=5), task="det")
    assert verify(mine, tmp_path).status == "complete"
    (tmp_path / "mine/JPEGImages/train/3.png").write_text("<html>log in</html>")
    assert verify(mine, tmp_path).status == "corrupt" and verify(mine, tmp_path).remark.startswith("JPEGImages/train/3.png: begins with b'<html>lo'")
    shutil.rmtree(tmp_path / "mine/JPEGImages")
    found = verify(mine, tmp_path)
    assert (found.status, found.images_found) == ("corrupt", 0) and found.remark.startswith("JPEGImages/train/0.png: is listed but does not exist") and found.remark.endswith("(faults in all: 5)")


def test_fetch_prepare_and_read_a_dataset_with_a_file_beside_its_archive(server, tmp_path):
    file = archive(chips(tmp_path / "source"), tmp_path / "chips.tar")
    server.files |= {"/chips.tar": (tmp_path / "chips.tar").read_bytes(), "/readme.txt": b"hello"}
    release = Release(name="public", kind="owner", reader="class_folders", folder="mine",
                      files=[file.model_copy(update={"url": f"{server.url}/chips.tar"}), ReleaseFile(name="readme.txt", url=f"{server.url}/readme.txt", into="mine/notes")])
    mine = dataset(release)
    assert fetch(mine, tmp_path / "data").name == prepare(mine, tmp_path / "data", tmp_path / "ready").name == "public"
    assert (tmp_path / "ready/mine/notes/readme.txt").read_text() == "hello" and len(list((tmp_path / "ready/mine").rglob("*.png"))) == 20
    fetch(mine, tmp_path / "data")
    assert len(server.asked) == 2


# ---------------------------------------------------------------- unpacking what strangers packed

def tar_of(path: Path, *members: tuple[str, bytes, bytes, str]) -> Path:    # name, content, type, where a link leads
    with tarfile.open(path, "w") as tar:
        for name, content, kind, link in members:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = len(content), kind, link
            tar.addfile(entry, io.BytesIO(content))
    return path


def zip_of(path: Path, name: str, content: bytes, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        entry = zipfile.ZipInfo(name)
        entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, mode << 16
        z.writestr(entry, content)
    return path


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_path_escapes(tmp_path, kind, name):
    path = tar_of(tmp_path / "x.tar", (name, b"x", tarfile.REGTYPE, "")) if kind == "tar" else zip_of(tmp_path / "x.zip", name, b"x")
    with pytest.raises(ValueError, match="outside its folder"): unpack(path, tmp_path / "in" / "here")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path] and not (tmp_path / "in" / "here").exists()


@pytest.mark.parametrize("kind, link", [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.SYMTYPE, "../.."), (tarfile.LNKTYPE, "/etc/passwd"), (tarfile.FIFOTYPE, ""), (tarfile.CHRTYPE, "")])
def test_no_links_and_devices_in_tar(tmp_path, kind, link):
    path = tar_of(tmp_path / "x.tar", ("a", b"", kind, link), ("a/b", b"x", tarfile.REGTYPE, ""))
    with pytest.raises(ValueError, match="'a', a link or special file; nothing was unpacked"): unpack(path, tmp_path / "here")
    assert names(tmp_path) == ["x.tar"]


def test_no_links_in_zip(tmp_path):
    with pytest.raises(ValueError, match="'a', a link"): unpack(zip_of(tmp_path / "x.zip", "a", b"/etc/passwd", stat.S_IFLNK | 0o777), tmp_path / "here")
    assert names(tmp_path) == ["x.zip"]


def test_zip_bomb_is_refused_by_its_ratio(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    path = zip_of(data / "bomb.zip", "zeros", bytes(64 * 2**20))    # 64 MiB in 64 KiB
    with pytest.raises(ValueError, match="expands to more than"): unpack(path, tmp_path / "here", max_bytes=200 * path.stat().st_size)
    mine = dataset(Release(name="bomb", kind="repack", reader="class_folders", manual="x", files=[ReleaseFile(name="bomb.zip", sha256=hashlib.sha256(path.read_bytes()).hexdigest())]))
    import sarclip.data.prepare as preparing
    assert preparing._room(path, tmp_path) < 2**30 + 200 * path.stat().st_size + 1    # the limit `prepare` sets
    assert prepare(mine, data, tmp_path / "ready").name == "bomb"                    # 64 MiB are still harmless


def test_zip_that_lies_about_its_size(tmp_path):
    path = zip_of(tmp_path / "x.zip", "zeros", bytes(10_000_000))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", 10_000_000), struct.pack("<I", 100)))    # both headers say 100 bytes
    with pytest.raises(ValueError, match="damaged or unsafe"): unpack(path, tmp_path / "here", max_bytes=1000)
    assert names(tmp_path) == ["x.zip"]


def test_truncated_archives(tmp_path):
    whole = tar_of(tmp_path / "whole.tar", ("a", BODY, tarfile.REGTYPE, "")).read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "x.zip").write_bytes(zip_of(tmp_path / "whole.zip", "a", BODY).read_bytes()[:1000])
    for name in ("x.tar", "x.zip"):
        with pytest.raises(ValueError, match=f"{name}.*replace it"): unpack(tmp_path / name, tmp_path / "here")
    assert not (tmp_path / "here").exists()


# ---------------------------------------------------------------- the manifest itself

WANTED = {"mstar", "sarsim", "opensarship", "sample", "atrnet_star", "sardet_100k", "fair_csar", "sarlang", "spacenet6", "dfc2023", "openearthmap_sar", "sar_acd", "fusar_ship", "sar_vsa",
          "rsicd", "rsitmd", "ucm", "au_air", "carpk", "dior", "dota", "hrrsd", "hrsc", "levir", "rsod", "stanford_drone", "visdrone", "isaid", "loveda", "potsdam", "vaihingen"}


def test_every_dataset_of_the_paper_is_there_and_can_be_read():
    manifest = load_manifest(ROOT / "data_manifest.yaml")
    assert WANTED <= set(manifest.datasets)
    for name in WANTED:
        entry = manifest.datasets[name]
        assert entry.licence and entry.citation and entry.sensor, name
        if entry.role == "origin": continue
        assert [r for r in entry.releases if r.kind == "owner"] or name == "visdrone", f"{name} cannot be brought"
        assert entry.classes or entry.task == "cap", f"{name} has no classes"
        for release in entry.releases: assert release.reader in READERS, f"{name}: {release.reader}"
    assert manifest.datasets["sardet_100k"].classes["tank"] == "storage tank"
    assert manifest.datasets["sarlang"].sources == ["spacenet6", "dfc2023", "openearthmap_sar"]
    assert {"mstar_soc", "mstar_eoc1", "mstar_eoc2_config", "mstar_eoc2_version", "fusar_ship", "sar_vsa", "sar_vsa_present", "sar_acd"} <= set(manifest.evaluations)


@pytest.mark.parametrize("old, new, mistake", [
    ("reader: class_folders", "reader: class_folder", "line 20, datasets.own_ships.releases.0.reader: unknown reader 'class_folder', expected 'class_folders'"),
    ("reader: class_folders", "reader: class_folders\n        options: {{lvel: 0}}", "line 21, datasets.own_ships.releases.0.options.lvel: reader 'class_folders' has no option 'lvel', expected 'level'"),
    ("reader: class_folders", "reader: mstar\n        options: {{level: 0}}", "line 21, datasets.own_ships.releases.0.options.level: reader 'mstar' has no option 'level', expected none")])
def test_mistaken_readers_and_options_are_told_with_their_line(tmp_path, old, new, mistake):
    (tmp_path / "m.yaml").write_text(OWN.replace(old, new).format(sha256="f" * 64, bytes=1, url="https://example.org"))
    with pytest.raises(ValueError, match=re.escape(mistake)): load_manifest(tmp_path / "m.yaml")


def test_numbers_that_are_products():
    datasets = load_manifest(ROOT / "data_manifest.yaml").datasets
    assert list(datasets["sample"].expected.factors.values()) == [1345, 2, 2] and datasets["sample"].expected.train_images == 5_380
    assert list(datasets["sarsim"].expected.factors.values()) == [14, 72, 7, 3] and datasets["sarsim"].expected.train_images == 21_168


# ---------------------------------------------------------------- a dataset of one's own, through the study

OWN = """\
datasets:
  own_ships:
    title: Ships of my own
    year: 2026
    task: cls
    role: sar
    page: https://example.org/ships
    licence: mine
    citation: me
    sensor: {{band: C}}
    classes: {{a: airship, b: barge}}
    crop: null
    tone: none
    split:
      - {{split: val, where: {{}}, fraction: 0.3}}
      - {{split: train, where: {{}}}}
    releases:
      - name: public
        kind: owner
        reader: class_folders
        folder: mine
        images: 20
        files:
          - {{name: ships.tar, sha256: {sha256}, bytes: {bytes}, url: "{url}/ships.tar"}}
"""


def test_own_dataset_is_fetched_read_and_captioned(fresh, server, tmp_path):
    file = archive(chips(tmp_path / "source"), tmp_path / "ships.tar")
    server.files["/ships.tar"] = (tmp_path / "ships.tar").read_bytes()
    server.script = [{"cut": 5_000}]
    (fresh.folder / "data_manifest.local.yaml").write_text(OWN.format(sha256=file.sha256, bytes=file.bytes, url=server.url))
    (fresh.folder / "profiles" / "own.yaml").write_text("title: own\nbackbones: [sarclip-mini]\ninits: [stage1]\nmain_init: stage1\n00_data: {source: archives, datasets: [own_ships], fetch: true}\n")
    status, output = fresh.call("sarclip-run", "00_data", "--profile", "own", "--data_dir", str(tmp_path / "data"))
    assert status == 0, output[-3000:]
    assert json.loads((fresh.runs / "own/data/00_data/metrics.json").read_text())["data/own_ships/images"] == 20
    status, output = fresh.call("sarclip-run", "01_build_dataset", "--profile", "own")
    assert status == 0, output[-3000:]
    pairs = pd.read_parquet(fresh.runs / "own/data/01_build_dataset/pairs.parquet")
    assert pairs.image_id.nunique() == 20 and pairs.caption.str.contains("airship|barge").all()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "labels.json", "labels.csv"])
def test_a_login_page_is_no_file_and_is_not_kept_for_the_next_fetch(server, tmp_path, name):
    "Without a checksum only the content tells."
    server.files[f"/{name}"] = b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>" * 40
    file = ReleaseFile(name=name, url=f"{server.url}/{name}")
    dataset = load_manifest().datasets["sar_acd"].model_copy(update={"releases": [Release(name="r", kind="owner", reader="class_folders", files=[file])]})
    for _ in range(2):
        with pytest.raises(ValueError, match=f"is not the file.*{name}.*web page"): fetch(dataset, tmp_path, patience=NO_WAIT)
        assert f"{name}.wrong" in names(tmp_path) and name not in names(tmp_path)
    (tmp_path / name).write_bytes(server.files[f"/{name}"])    # as an earlier version kept it
    with pytest.raises(ValueError, match="web page.*remove it to have it fetched again"): fetch(dataset, tmp_path, patience=NO_WAIT)
    assert verify(dataset, tmp_path).status == "corrupt"
