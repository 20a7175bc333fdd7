"""Proofreading over real HTTP: an endpoint that is slow, busy, broken, hung, gone, or has ideas of its own."""
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="the optional package openai is not installed")

from sarclip.captions.llm import GIVE_UP, PROMPT, LanguageModel
from sarclip.captions.proofread import Harper, choose_proofreader, proofread

NAMES = ("ship", "aircraft", "bridge")
FAULTY = [f"A SAR image of {n} ship in the upper left." for n in range(2, 12)]    # each is mended by one letter


def mend(text: str) -> str: return text.replace(" ship ", " ships ")


def answer(captions: list[dict], edit: Callable[[str], str] = mend) -> str:
    return json.dumps({"captions": [{"id": c["id"], "text": edit(c["text"]), "finding": "plural" * (edit(c["text"]) != c["text"])} for c in captions]})


class Endpoint:
    "An endpoint of chat completions. `behave(captions, call)` gives the content of an answer, or (status, headers, body); calls count from 1."

    def __init__(self, behave: Callable):
        self.calls, self.running, self.most, self.asked, self.requests, lock = 0, 0, 0, [], [], threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                captions = json.loads(request["messages"][-1]["content"])
                with lock:
                    endpoint.calls += 1
                    endpoint.running += 1
                    endpoint.most = max(endpoint.most, endpoint.running)
                    endpoint.asked += [c["text"] for c in captions]
                    endpoint.requests.append((self.path, request, time.monotonic()))
                    call = endpoint.calls
                try:
                    result = behave(captions, call)
                    status, headers, body = result if isinstance(result, tuple) else (200, {}, json.dumps({"choices": [{"message": {"content": result}}]}))
                    self.send_response(status)
                    for name, value in headers.items(): self.send_header(name, value)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body.encode())))
                    self.end_headers()
                    self.wfile.write(body.encode())
                except (BrokenPipeError, ConnectionResetError): pass    # the caller gave up waiting
                finally:
                    with lock: endpoint.running -= 1

            def log_message(self, *_) -> None: pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable], Endpoint]]:
    endpoints = []

    def start(behave: Callable) -> Endpoint:
        endpoints.append(Endpoint(behave))
        return endpoints[-1]

    yield start
    for endpoint in endpoints: endpoint.close()


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., LanguageModel]:
    "A language model with waits fit for a test."
    def make(endpoint: Endpoint | str, **options) -> LanguageModel:
        settings = {"model": "m", "cache": tmp_path / "cache" / "answers.sqlite", "batch": 4, "limit": 5, "attempts": 4, "pause": .01} | options
        return LanguageModel(endpoint if isinstance(endpoint, str) else endpoint.url, **settings)
    return make


def kept(path: Path) -> int:    # answers in the cache
    with sqlite3.connect(path) as db: return db.execute("SELECT count(*) FROM answers").fetchone()[0]


def test_batches_and_a_second_run_without_calls(serve, model):
    endpoint = serve(lambda captions, call: answer(captions))
    checked = proofread(FAULTY + FAULTY[:3], NAMES, model(endpoint))
    assert list(checked.text) == FAULTY and list(checked.corrected) == [mend(t) for t in FAULTY] and checked.changed.all()
    assert "m, a language model" in checked.attrs["proofreader"]
    assert endpoint.calls == 3 and sorted(endpoint.asked) == sorted(FAULTY)    # 4 + 4 + 2, each caption once
    path, request, _ = endpoint.requests[0]
    assert path == "/v1/chat/completions" and request["model"] == "m" and request["messages"][0]["content"] == PROMPT
    assert proofread(FAULTY, NAMES, model(endpoint)).equals(checked) and endpoint.calls == 3
    proofread([*FAULTY, "A SAR image of a bridge."], NAMES, model(endpoint))
    assert endpoint.calls == 4 and endpoint.asked[-1] == "A SAR image of a bridge."
    proofread(FAULTY, NAMES, model(endpoint, model="another"))
    assert endpoint.calls == 7    # another model has answered nothing yet


def test_requests_run_side_by_side_but_no_more_than_allowed(serve, model):
    barrier = threading.Barrier(3, timeout=4)

    def behave(captions, call):
        if call <= 3: barrier.wait()    # breaks unless three are under way at once
        else: time.sleep(.02)
        return answer(captions)

    endpoint = serve(behave)
    proofread(FAULTY, NAMES, model(endpoint, batch=1, concurrent=3))
    assert endpoint.most == 3 and not barrier.broken


def test_slow_is_waited_for(serve, model):
    def behave(captions, call):
        time.sleep(.5)
        return answer(captions)
    endpoint = serve(behave)
    assert proofread(FAULTY[:4], NAMES, model(endpoint)).changed.all() and endpoint.calls == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 408])
def test_busy_or_broken_for_a_while(serve, model, status):
    endpoint = serve(lambda captions, call: (status, {}, '{"error": {"message": "later"}}') if call <= 2 else answer(captions))
    assert proofread(FAULTY[:4], NAMES, model(endpoint)).changed.all() and endpoint.calls == 3


def test_retry_after_is_respected(serve, model):
    endpoint = serve(lambda captions, call: (429, {"Retry-After": "1"}, "{}") if call == 1 else answer(captions))
    assert proofread(FAULTY[:4], NAMES, model(endpoint)).changed.all()
    (*_, first), (*_, second) = endpoint.requests
    assert second - first >= 1
    away = serve(lambda captions, call: (429, {"Retry-After": "86400"}, "{}"))    # a quota for the day: nobody waits for that
    with pytest.raises(ConnectionError, match="gave no answer in 1 attempts .*429"): proofread(["Two ship."], NAMES, model(away))


def test_waits_grow(serve, model):
    endpoint = serve(lambda captions, call: (500, {}, "{}"))
    with pytest.raises(ConnectionError): proofread(FAULTY[:1], NAMES, model(endpoint, pause=.1))
    times = [when for *_, when in endpoint.requests]
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert len(gaps) == 3 and all(gap >= wait for gap, wait in zip(gaps, (.1, .2, .4)))


GARBAGE = {
    "not JSON": lambda captions: "Sure, here are your captions!",
    "a preface": lambda captions: "Here you go: " + answer(captions),
    "truncated": lambda captions: answer(captions)[:-15],
    "one short": lambda captions: answer(captions[:-1]),
    "one too many": lambda captions: answer([*captions, {"id": len(captions) + 1, "text": "more"}]),
    "one twice": lambda captions: answer([*captions[:-1], captions[0]]),
    "other keys": lambda captions: json.dumps([c["text"] for c in captions]),
    "empty": lambda captions: "",
    "null content": lambda captions: (200, {}, '{"choices": [{"message": {"content": null}}]}'),
    "no choices": lambda captions: (200, {}, '{"choices": []}'),
    "a web page": lambda captions: (200, {}, "<html>login</html>"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_wrong_answer_is_asked_again(serve, model, kind):
    endpoint = serve(lambda captions, call: GARBAGE[kind](captions) if call == 1 else answer(captions))
    checked = proofread(FAULTY[:4], NAMES, model(endpoint))
    assert list(checked.corrected) == [mend(t) for t in FAULTY[:4]] and endpoint.calls == 2


def test_one_indigestible_caption_does_not_spoil_its_batch(serve, model, tmp_path):
    bad = FAULTY[2]
    behave = lambda captions, call: "I cannot do that." if any(c["text"] == bad for c in captions) else answer(captions)
    endpoint = serve(behave)
    checked = proofread(FAULTY[:4], NAMES, model(endpoint)).set_index("text")
    assert checked.changed.drop(bad).all() and not checked.changed[bad] and checked.corrected[bad] == bad
    assert checked.reason[bad].startswith("left as it is: no usable answer from m")
    assert kept(tmp_path / "cache" / "answers.sqlite") == 3    # the fourth is asked again next time
    calls = endpoint.calls
    proofread(FAULTY[:4], NAMES, model(endpoint))
    assert set(endpoint.asked[-(endpoint.calls - calls):]) == {bad}


def test_a_model_that_never_answers_usably_is_given_up(serve, model, tmp_path):
    endpoint = serve(lambda captions, call: "Ahoy!")
    with pytest.raises(ConnectionError, match=f"gave {GIVE_UP} requests in a row no usable answer.*use a model") as caught:
        proofread([f"A SAR image of {n} ships." for n in range(200)], NAMES, model(endpoint, attempts=2))
    assert "\n" not in str(caught.value) and endpoint.calls <= 2 * (GIVE_UP + 8) and kept(tmp_path / "cache" / "answers.sqlite") == 0


def test_a_hung_request_is_cut_off(serve, model):
    release = threading.Event()

    def behave(captions, call):
        if call == 1: release.wait(10)
        return answer(captions)

    endpoint, start = serve(behave), time.monotonic()
    assert proofread(FAULTY[:4], NAMES, model(endpoint, limit=.5)).changed.all() and endpoint.calls == 2
    assert time.monotonic() - start < 5
    release.set()


def test_a_trickle_is_cut_off_too(model):
    "A body that grows by a byte now and then never lets a read time out; the limit is on the whole attempt."
    with socket.create_server(("127.0.0.1", 0)) as server:
        def trickle() -> None:
            while True:
                try: connection, _ = server.accept()
                except OSError: return
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

        def drip(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
                    for _ in range(100):
                        connection.sendall(b" ")
                        time.sleep(.1)
                except OSError: pass

        threading.Thread(target=trickle, daemon=True).start()
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="no answer within 0.4 s"):
            model(f"http://127.0.0.1:{server.getsockname()[1]}/v1", limit=.4, attempts=2).propose(["Two ship."])
        assert time.monotonic() - start < 5


def test_an_endpoint_that_goes_down_leaves_a_whole_cache(serve, model, tmp_path):
    endpoint = serve(lambda captions, call: answer(captions) if call <= 2 else (503, {}, "{}"))
    cache = tmp_path / "cache" / "answers.sqlite"
    with pytest.raises(ConnectionError, match="gave no answer in 4 attempts .*503.*run again") as caught:
        proofread(FAULTY, NAMES, model(endpoint, batch=2, concurrent=1))
    assert "\n" not in str(caught.value) and str(cache) in str(caught.value)
    assert kept(cache) == 4
    assert [p.name for p in cache.parent.iterdir()] == [cache.name]    # no journal left half-way
    healthy = serve(lambda captions, call: answer(captions))
    assert proofread(FAULTY, NAMES, model(healthy)).changed.all() and sorted(healthy.asked) == sorted(FAULTY[4:])


def test_nobody_listens(model):
    with socket.create_server(("127.0.0.1", 0)) as taken: port = taken.getsockname()[1]    # free again
    with pytest.raises(ConnectionError, match="gave no answer in 4 attempts .*start the server"):
        model(f"http://127.0.0.1:{port}/v1").propose(["Two ship."])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_repeated(serve, model, status):
    endpoint = serve(lambda captions, call: (status, {}, '{"error": {"message": "no such model"}}'))
    with pytest.raises(ValueError, match=rf"refuses to proofread with the model 'm' \(.*{status}.*no such model"): proofread(["Two ship."], NAMES, model(endpoint))
    assert endpoint.calls == 1


SCRIPT = """
import sys
from pathlib import Path
from sarclip.captions.llm import LanguageModel
texts = [f"A SAR image of {n} ship in the upper left." for n in range(2, 12)]
LanguageModel(sys.argv[1], "m", Path(sys.argv[2]), batch=2, concurrent=1).propose(texts)
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_was(serve, model, tmp_path, blow):
    third, cache = threading.Event(), tmp_path / "answers.sqlite"

    def behave(captions, call):
        if call == 3:
            third.set()
            time.sleep(3)
        return answer(captions)

    endpoint = serve(behave)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, endpoint.url, str(cache)], cwd=Path(__file__).parent.parent, stderr=subprocess.DEVNULL,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))    # a shell's background jobs ignore it
    assert third.wait(60)
    process.send_signal(blow)
    assert process.wait(30) != 0
    assert kept(cache) == 4
    healthy = serve(lambda captions, call: answer(captions))
    checked = proofread(FAULTY, NAMES, model(healthy, cache=cache))
    assert checked.changed.all() and sorted(healthy.asked) == sorted(FAULTY[4:])


def test_a_file_that_is_no_cache(serve, model, tmp_path):
    (tmp_path / "notes.txt").write_text("my notes, " * 1000)
    endpoint = serve(lambda captions, call: answer(captions))
    with pytest.raises(ValueError, match="notes.txt cannot be used as a cache"): model(endpoint, cache=tmp_path / "notes.txt").propose(["Two ship."])
    assert (tmp_path / "notes.txt").read_text() == "my notes, " * 1000


TRUTH = "In this SAR image, the two ships in the upper left is positioned above the aircraft in the center."
INVENTED = {
    "another number": TRUTH.replace("two", "three"),
    "a number less": TRUTH.replace("the two ships", "the ships"),
    "another class": TRUTH.replace("aircraft", "bridge"),
    "a class outside the vocabulary": TRUTH.replace("ships", "vessels"),
    "a class more": TRUTH.replace("center.", "center and a bridge."),
    "a stranger more": TRUTH.replace("center.", "center, beside trees."),
    "another place": TRUTH.replace("upper left", "upper right"),
    "a place less": TRUTH.replace(" in the center", ""),
    "another direction": TRUTH.replace("above", "below"),
    "the other way round": "In this SAR image, the aircraft in the center is positioned above the two ships in the upper left.",
    "an adjective": TRUTH.replace("two ships", "two large ships"),
    "an adjective elsewhere": TRUTH.replace("SAR image", "grainy SAR image"),
    "an adverb": TRUTH.replace("positioned", "clearly positioned"),
    "nothing there": TRUTH.replace("the two ships", "no ships"),
    "a denial": TRUTH.replace("is positioned", "are not positioned"),
    "a denial at the end": TRUTH + " There are no bridges.",
    "a comment": TRUTH + " I fixed the verb.",
    "mark-up": f"**{TRUTH}**",
    "nothing": "",
}


@pytest.mark.parametrize("kind", INVENTED)
def test_an_invented_edit_is_refused_and_listed(serve, model, kind):
    endpoint = serve(lambda captions, call: answer(captions, lambda text: INVENTED[kind]))
    row = proofread([TRUTH], NAMES, model(endpoint)).iloc[0]
    assert row.corrected == TRUTH and not row.changed and row.reason.startswith("refused, ")


def test_mends_are_accepted(serve, model):
    mended = TRUTH.replace(" is ", " are ")
    endpoint = serve(lambda captions, call: answer(captions, lambda text: mended))
    row = proofread([TRUTH], NAMES, model(endpoint)).iloc[0]
    assert row.corrected == mended and row.changed and row.reason.startswith("corrected")


def test_who_proofreads(tmp_path):
    assert isinstance(choose_proofreader(NAMES, None, None, tmp_path / "c"), Harper)
    assert "Harper" in proofread(["A SAR image of an ship."], NAMES).attrs["proofreader"]
    assert isinstance(choose_proofreader(NAMES, "http://localhost:1/v1", "m", tmp_path / "c"), LanguageModel)
    for half in (("http://localhost:1/v1", None), (None, "m")):
        with pytest.raises(ValueError, match="llm_url and llm_model belong together"): choose_proofreader(NAMES, *half, tmp_path / "c")


def test_without_the_optional_package(tmp_path):
    script = ("import sys; sys.modules['openai'] = None\n"
              "from pathlib import Path\nfrom sarclip.captions.proofread import choose_proofreader\n"
              "choose_proofreader(['ship'], 'http://localhost:1/v1', 'm', Path('c'))")
    found = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert "ModuleNotFoundError: proofreading with a language model needs the package openai; install it with: pip install 'sarclip[llm]'" in found.stderr


@pytest.mark.parametrize("added", [" the" * 500_000, " the the", " " + "in the " * 20], ids=["half a million", "doubled", "twenty times"])
def test_small_words_without_end_are_no_correction(added):
    class Chatty:
        name = "chatty"
        def propose(self, texts): return [(text.rstrip(".") + added + ".", "reads better") for text in texts]

    row = proofread(["A SAR image of a ship."], NAMES, Chatty()).iloc[0]
    assert not row.changed and row.corrected == row.text and row.reason.startswith("refused") and len(row.reason) < 500
