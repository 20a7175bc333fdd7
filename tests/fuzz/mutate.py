"""Damage as it happens and as somebody would do it: one seed, one mutant."""
import random
import re

NUMBERS = [b"0", b"-1", b"1", b"7", b"8O", b"7,5", b"1_2", b"0x10", b"1e3", b"1e19", b"1e999", b"-0.0", b"nan", b"inf", b"99999999999999999999", b"2147483648", b"0.5", b"1.", b".5", "٣".encode(), b"1e-400", b""]
WORDS = [b"", b"..", b"../../x", b"/etc/hostname", b"a/b", b"C:\\x", b"null", b"true", b"[]", b"{}", b"\xff\xfe", b"\0", "Brücke".encode(), b"x" * 300, b"$(touch x)", b"<!DOCTYPE x>", b"&amp;", b"'", b'"', b"\n", b"\r\n", b"%s{}", b"ship", b"car", b"train", b"test", b"1", "\u202e".encode()]


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    "A copy with one to three faults; `others` are files of the same subject, from which pieces are taken."
    for _ in range(rng.choice((1, 1, 1, 2, 3))): data = rng.choice(TEXT if rng.random() < 0.6 and _is_text(data) else BYTES)(data, rng, others)
    return data


def _is_text(data: bytes) -> bool:
    head = data[:400]
    return bool(head) and sum(32 <= b < 127 or b in b"\r\n\t" for b in head) > 0.9 * len(head)


def _span(data: bytes, rng: random.Random, longest: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randrange(1, longest + 1))


def flip(data, rng, others):
    if not data: return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1:]
def flip_early(data, rng, others): return flip(data[:64], rng, others) + data[64:]
def set_bytes(data, rng, others):
    a, b = _span(data, rng, 8)
    return data[:a] + rng.choice((bytes(b - a), b"\xff" * (b - a), rng.randbytes(b - a))) + data[b:]
def delete(data, rng, others):
    a, b = _span(data, rng, rng.choice((1, 4, 64, 4096)))
    return data[:a] + data[b:]
def insert(data, rng, others):
    a = rng.randrange(len(data) + 1)
    return data[:a] + rng.randbytes(rng.randrange(1, 9)) + data[a:]
def repeat(data, rng, others):
    a, b = _span(data, rng, 512)
    return data[:b] + data[a:b] * rng.choice((1, 1, 2, 50)) + data[b:]
def cut(data, rng, others): return data[:rng.randrange(len(data) + 1)]
def splice(data, rng, others):
    other = rng.choice(others) if others else data
    a, b = _span(data, rng, 256)
    c, d = _span(other, rng, 256)
    return data[:a] + other[c:d] + data[b:]
def whole_other(data, rng, others): return rng.choice(others) if others else b""
def word_of_four(data, rng, others):
    "A 32-bit length or offset with another value, as headers have them."
    if len(data) < 4: return data
    a = rng.randrange(0, len(data) - 3)
    value = rng.choice((0, 1, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
    return data[:a] + value.to_bytes(4, rng.choice(("big", "little"))) + data[a + 4:]


def _token(pattern: bytes):
    def replace(data, rng, others):
        found = list(re.finditer(pattern, data[:200_000]))
        if not found: return data
        match = rng.choice(found)
        return data[:match.start()] + rng.choice(NUMBERS if pattern == NUMBER else WORDS) + data[match.end():]
    return replace
def digit(data, rng, others):
    found = list(re.finditer(rb"\d", data[:200_000]))
    if not found: return data
    place = rng.choice(found).start()
    return data[:place] + rng.choice((b"0", b"1", b"9", b"O", b"l", b",", b".", b"-", b"e", b" ")) + data[place + 1:]
def swap_tokens(data, rng, others):
    found = list(re.finditer(rb"[\w.]+", data[:200_000]))
    if len(found) < 2: return data
    first, second = sorted(rng.sample(found, 2), key=lambda m: m.start())
    return data[:first.start()] + second[0] + data[first.end():second.start()] + first[0] + data[second.end():]
def drop_line(data, rng, others):
    lines = data.splitlines(True)
    if lines: lines.pop(rng.randrange(len(lines)))
    return b"".join(lines)
def double_line(data, rng, others):
    lines = data.splitlines(True)
    if lines: lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return b"".join(lines)


NUMBER, WORD = rb"[-+]?\d+(?:\.\d+)?", rb"[A-Za-z_][\w./-]*"
TEXT = (_token(NUMBER), _token(NUMBER), _token(WORD), digit, swap_tokens, drop_line, double_line)
BYTES = (flip, flip, flip_early, set_bytes, delete, insert, repeat, cut, splice, whole_other, word_of_four, word_of_four)
