"""Search among a million tiles on one thread: 1,000,000 × 512 clustered vectors through the store that `sarclip search` uses.

The vectors are drawn around 2,000 centres, the clusters of unequal size (log-normal), with as much spread in every direction as keeps
members at a cosine of one half: neighbours are close in number, not in distance, which is hard for an index. Queries are drawn alike and
not stored. A process of its own writes the store, builds the lists and answers; exact search, computed beside it, is the yardstick.
Goals: recall@10 of at least 0.95, a median query of at most 50 ms, from the query vector to the rows of the table. `--quick` takes a
twentieth.
"""
import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
if any(os.environ.get(name) != "1" for name in THREADS):    # libraries read them when they load: begin again with one thread
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))

import resource
import subprocess

import numpy as np

from sarclip.explore import store as stores
from sarclip.explore.store import TileStore
from sarclip.explore.tiles import Window

VECTORS, DIMENSION, QUERIES, K, BLOCK = 1_000_000, 512, 200, 10, 20_000


def blocks(vectors: int) -> Iterator[np.ndarray]:
    "The vectors, float32 (BLOCK, DIMENSION) at a time, and last the queries; the same at every call."
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, vectors // 500), DIMENSION), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    share = rng.lognormal(size=len(centres))
    for n in [*[BLOCK] * (vectors // BLOCK), QUERIES]:
        block = centres[rng.choice(len(centres), n, p=share / share.sum())]
        block += rng.standard_normal((n, DIMENSION), dtype=np.float32) / np.sqrt(DIMENSION)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def measure(folder: Path, vectors: int) -> None:
    "In a process of its own, so that its memory is the index's alone: build, open, answer."
    started, generated, queries = time.perf_counter(), 0.0, None
    store = TileStore.create(folder / "index.sqlite", DIMENSION, {"model": "bench"})
    last, mark = vectors // BLOCK, time.perf_counter()
    for number, block in enumerate(blocks(vectors)):
        generated += time.perf_counter() - mark
        if number == last: queries = block
        else:
            with store.transaction():    # one file a block
                file = store.put_file(f"{number}.tif", 1, 1, (BLOCK, 1), "none", (0, 255))
                for i, vector in enumerate(block): store.put_tile(file, Window(i, 0, 1, 1), None, vector)
                store.finish_file(file)
        mark = time.perf_counter()
    written = time.perf_counter() - started - generated
    store.prepare()
    built = time.perf_counter() - started - generated
    store.close()
    started = time.perf_counter()
    store = TileStore.open(folder / "index.sqlite")
    store.nearest(queries[0], K)
    opened, took, found = time.perf_counter() - started, [], []
    for query in queries:
        started = time.perf_counter()
        ids, _ = store.nearest(query, K)
        store.tiles(ids)
        took.append(time.perf_counter() - started)
        found.append(ids.tolist())
    print(json.dumps({"written_s": written, "build_s": built, "open_s": opened, "query_ms": 1000 * float(np.median(took)),
                      "slow_ms": 1000 * float(np.quantile(took, 0.99)), "found": found,
                      "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
                      "disk_gib": sum(p.stat().st_size for p in folder.iterdir()) / 2**30}))


def exact(vectors: int) -> list[list[int]]:
    "The ids of the true neighbours, ids being numbers from 1 in the order of the vectors."
    *_, queries = blocks(vectors)
    best, ids = np.full((QUERIES, K), -2, np.float32), np.zeros((QUERIES, K), np.int64)
    for number, block in enumerate(blocks(vectors)):
        if number == vectors // BLOCK: break
        near = np.hstack([best, queries @ block.T])
        names = np.hstack([ids, np.broadcast_to(np.arange(len(block)) + number * BLOCK + 1, (QUERIES, len(block)))])
        order = np.argpartition(-near, K, axis=1)[:, :K]
        best, ids = np.take_along_axis(near, order, 1), np.take_along_axis(names, order, 1)
    return ids.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the vectors, to see that it runs")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    vectors = VECTORS // 20 if arguments.quick else VECTORS
    if arguments.quick: stores.EXACT_UP_TO = 1000    # the lists are what is measured
    if arguments.measure: return measure(arguments.measure, vectors)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--measure", folder, *["--quick"] * arguments.quick]
        run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    truth = exact(vectors)
    recall = float(np.mean([len(set(f) & set(t)) / K for f, t in zip(run["found"], truth)]))
    print(f"{vectors:,} × {DIMENSION} vectors, {QUERIES} queries, k = {K}, one thread")
    for label, value in (("written to the store", f"{run['written_s']:.0f} s"), ("with lists, ready to search", f"{run['build_s']:.0f} s"),
                         ("opened and asked for the first time", f"{run['open_s']:.1f} s"),
                         ("query, median", f"{run['query_ms']:.1f} ms (goal: at most 50)"), ("query, 99th percentile", f"{run['slow_ms']:.1f} ms"),
                         ("recall@10 of exact search", f"{recall:.4f} (goal: at least 0.95)"), ("memory, highest", f"{run['memory_gib']:.2f} GiB"),
                         ("on disk", f"{run['disk_gib']:.2f} GiB")): print(f"{label:<40}{value}")
    print(json.dumps({"vectors": vectors, "query_ms": round(run["query_ms"], 2), "build_s": round(run["build_s"], 1),
                      "memory_gib": round(run["memory_gib"], 2), "recall_at_10": round(recall, 4),
                      "holds": recall >= 0.95 and run["query_ms"] <= 50}))


if __name__ == "__main__": main()
