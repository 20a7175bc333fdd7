"""Thousands of damaged files, each with one of three ends: read, and equal to what an independent check says; reported and left out; or
refused by one typed error that names the file. Anything else is a failure, printed with the numbers that repeat it.

    python tests/fuzz/fuzz.py                                        # 2,000 mutants a format
    python tests/fuzz/fuzz.py --mutants 30 --only png                # fewer, of formats whose name holds a word
    python tests/fuzz/fuzz.py --only "dataset voc" --first 1234 --mutants 1 --keep DIR    # one mutant again; its files stay in DIR
"""
import argparse
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from mutate import mutate
from subjects import SUBJECTS, Named, Subject

SECONDS, MEMORY = 20, 3 * 2**30    # what one mutant may take
REFUSALS = (ValueError, FileNotFoundError)
# of Python and the libraries, and never shown to a user as they are
RAW = ("UnicodeDecodeError", "UnicodeEncodeError", "JSONDecodeError", "ValidationError")


def damage(root: Path, sound: dict[str, bytes], subject: Subject, rng: random.Random) -> str:
    "Damage one file; its name."
    name = rng.choice([n for n in sorted(sound) if not subject.spare(n)])
    path, others = root / name, [data for n, data in sound.items() if n != name]
    way = rng.random()
    if way < .02: path.unlink()
    elif way < .03: path.unlink(), path.mkdir()
    elif way < .04: path.unlink(), path.symlink_to("/etc/hostname")
    elif way < .06: path.write_bytes(b"")
    else: path.write_bytes(mutate(sound[name], rng, others))
    return name


def restore(root: Path, sound: dict[str, bytes]) -> None:
    for name, data in sound.items():
        path = root / name
        if path.is_symlink(): path.unlink()
        elif path.is_dir(): shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for path in [p for p in root.rglob("*") if not p.is_dir() and p.relative_to(root).as_posix() not in sound]: path.unlink()


def outcome(subject: Subject, root: Path, names: list[str]) -> tuple[str, str]:
    "What became of a mutant, and where that is wrong, why."
    signal.alarm(SECONDS)
    try: return subject.examine(root), ""
    except Named: return "refused", ""
    except REFUSALS as error:
        sentence = str(error)
        if type(error).__name__ in RAW: return "failed", f"raw {type(error).__name__}: {sentence[:200]}"
        if not any(Path(name).name in sentence or Path(name).stem in sentence for name in names) and str(root) not in sentence:
            return "failed", f"{type(error).__name__} names no file: {sentence[:200]}"
        return "refused", ""
    except TimeoutError: return "failed", f"took more than {SECONDS} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt): raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "failed", f"{type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}:{place.lineno})"
    finally: signal.alarm(0)


def fuzz(name: str, subject: Subject, mutants: int, seed: int, first: int, keep: Path | None) -> tuple[Counter, list[str]]:
    counts, failures = Counter(), []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        root = (keep or Path(folder)) / "tiny"
        root.mkdir(parents=True, exist_ok=True)
        subject.make(root)
        sound = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        end, why = outcome(subject, root, list(sound))
        assert end == "read", f"{name}: the sound files are not read: {end} {why}"
        for n in range(first, first + mutants):
            file = damage(root, sound, subject, random.Random(f"{seed} {name} {n}"))
            end, why = outcome(subject, root, list(sound))
            counts[end] += 1
            if end == "failed": failures.append(f"{name!r} --seed {seed} --first {n}, {file}: {why}")
            if not keep: restore(root, sound)
    return counts, failures


def too_long(*_) -> None: raise TimeoutError


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--mutants", type=int, default=2000, help="of each format")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--first", type=int, default=0, help="number of the first mutant")
    words.add_argument("--only", default="", help="formats whose name holds this")
    words.add_argument("--keep", type=Path, help="leave the files of the last mutant here")
    asked = words.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)    # tifffile and GDAL tell of each damaged tag
    signal.signal(signal.SIGALRM, too_long)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").is_file() else 0
    if pages: resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    chosen = {name: subject for name, subject in SUBJECTS.items() if asked.only in name}
    if not chosen: words.error(f"no format's name holds {asked.only!r}; there are {', '.join(SUBJECTS)}")
    bad, began = [], time.perf_counter()
    print(f"{'format':<28}{'mutants':>8}{'read':>8}{'reported':>10}{'refused':>9}{'failed':>8}", flush=True)
    for name, subject in chosen.items():
        counts, failures = fuzz(name, subject, asked.mutants, asked.seed, asked.first, asked.keep)
        print(f"{name:<28}{counts.total():>8,}{counts['read']:>8,}{counts['reported']:>10,}{counts['refused']:>9,}{counts['failed']:>8,}", flush=True)
        for failure in failures[:8]: print(f"  {failure}", flush=True)
        bad += failures
    print(f"{len(chosen)} formats, {len(chosen) * asked.mutants:,} mutants, {time.perf_counter() - began:.0f} s, {len(bad)} failures")
    return 1 if bad else 0


if __name__ == "__main__": sys.exit(main())
