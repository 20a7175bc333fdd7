"""Evaluation against references of its own kind: brute force in float64, clip_benchmark, L-BFGS; and what it refuses."""
import json

import numpy as np
import pytest
import torch

from sarclip.evaluation.features import Features, as_arrays, load_features, metric_rows, save_features, stored_features
from sarclip.evaluation.interchange import encoder_from_file
from sarclip.evaluation.invariants import retrieval_invariants
from sarclip.evaluation.linear_head import HeadConfig, fit_head, interpolate, linear_head, text_head, zero_head
from sarclip.models.checkpoint import save_checkpoint
from sarclip.models.factory import create
from sarclip.evaluation.recognition import linear_probe, nearest_neighbours, text_classification
from sarclip.evaluation.retrieval import CLOSE, DIRECTIONS, KS, breakdown, evaluate_retrieval, query_table, summarise

# Each draw below seeds itself by its size, so that a test sees the same numbers alone, in any order and beside any other.

def unit(x: np.ndarray) -> np.ndarray: return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def random_features(n: int, dim: int, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    x = unit(rng.standard_normal((n, dim)))
    return x, unit(x + noise * rng.standard_normal((n, dim)))


def narrow_cone(n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    "What an encoder gives: all images close to one direction, all captions to another, a few directions carry most of the rest, some repeat."
    rng, spread = np.random.default_rng(n), 1 / np.arange(1, dim + 1)
    content = rng.standard_normal((n, dim)) * spread
    x, y = unit(1 + .05 * content), unit(1 + .05 * content + .02 * rng.standard_normal((n, dim)) * spread)
    x[::17], y[::13] = x[0], y[0]
    return x, y


def reference_ranks(x: np.ndarray, y: np.ndarray, facts: list[str]) -> tuple[dict, dict]:
    "Ranks by definition, in float64, ties against the model; and the distance of the nearest wrong item to the best right one."
    scores, said = x.astype(np.float64) @ y.astype(np.float64).T, np.array(facts)
    ranks, margins = {}, {}
    for direction, s in zip(DIRECTIONS, (scores, scores.T)):
        for protocol, right in (("strings", np.eye(len(x), dtype=bool)), ("facts", said[:, None] == said)):
            best = np.where(right, s, -2).max(1, keepdims=True)
            wrong = np.where(right, -2, s)
            ranks[protocol, direction] = 1 + (wrong >= best - 1e-12).sum(1)
            margins[protocol, direction] = np.abs(wrong - best).min(1)
    return ranks, margins


@pytest.mark.parametrize("make", [random_features, narrow_cone])
@pytest.mark.parametrize("n, dim, threads", [(1100, 48, 1), (1500, 768, 2)])
def test_ranks_equal_brute_force_to_the_last_query(make, n, dim, threads):
    x, y = make(n, dim)
    facts = [f"f{i}" for i in np.random.default_rng(dim).integers(0, n // 8, n)]
    expected, margins = reference_ranks(x, y, facts)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try: table = query_table(x, y, facts, [{f} for f in facts], tile=512)
    finally: torch.set_num_threads(before)
    for key, found in table.groupby(["protocol", "direction"]):
        assert np.array_equal(found["rank"], expected[key]), key
        clearly = np.abs(margins[key] - CLOSE) > 1e-9
        assert np.array_equal((found["close"] > 0)[clearly], (margins[key] < CLOSE)[clearly]), key
    assert torch.get_num_threads() == before


def test_recalls_follow_from_the_reference_ranks():
    x, y = random_features(600, 32)
    facts = [f"f{i % 70}" for i in range(600)]
    ranks, _ = reference_ranks(x, y, facts)
    metrics = evaluate_retrieval(x, y, facts, [{f} for f in facts])
    for protocol, task in (("strings", "retrieval"), ("facts", "retrieval_facts")):
        recalls = [100 * (ranks[protocol, d] <= k).mean() for d in DIRECTIONS for k in KS]
        assert np.allclose([metrics[f"{task}/sarclip_1m/{d}_r{k}"] for d in DIRECTIONS for k in KS], recalls)
        assert np.isclose(metrics[f"{task}/sarclip_1m/mean_recall"], np.mean(recalls))
        assert metrics[f"{task}/sarclip_1m/t2i_median_rank"] == np.median(ranks[protocol, "t2i"])


class Stored(torch.nn.Module):
    "A CLIP whose images and captions are rows of stored features, for evaluators that insist on a model."

    def __init__(self, texts: np.ndarray):
        super().__init__()
        self.texts = torch.from_numpy(texts)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor: return images

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor: return self.texts[tokens]


def test_retrieval_equals_clip_benchmark():
    peer = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    x, y = random_features(400, 64)
    batches = [(torch.from_numpy(x[i:i + 50]), [[str(j)] for j in range(i, i + 50)]) for i in range(0, 400, 50)]
    theirs = peer.evaluate(Stored(y), batches, lambda texts: torch.tensor([int(t) for t in texts]), "cpu", amp=False, recall_k_list=list(KS))
    facts = [str(i) for i in range(400)]
    ours = evaluate_retrieval(x, y, facts, [{f} for f in facts])
    for k in KS:
        assert abs(ours[f"retrieval/sarclip_1m/i2t_r{k}"] / 100 - theirs[f"text_retrieval_recall@{k}"]) < 1e-6
        assert abs(ours[f"retrieval/sarclip_1m/t2i_r{k}"] / 100 - theirs[f"image_retrieval_recall@{k}"]) < 1e-6


class Batches(list):
    "A list of batches that knows its classes, as clip_benchmark asks of a loader."
    dataset = type("Dataset", (), {"classes": [f"c{i}" for i in range(9)]})


def test_classification_equals_clip_benchmark(monkeypatch):
    peer = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    monkeypatch.setattr(peer, "float", lambda value: value.item(), raising=False)    # its float(array of one number) is an error since NumPy 2.4
    rng = np.random.default_rng(0)
    centres, truth = unit(rng.standard_normal((9, 24))), rng.integers(0, 9, 500)
    x = unit(centres[truth] + 3 * unit(rng.standard_normal((500, 24))))
    classes = Batches.dataset.classes
    batches = Batches([(torch.from_numpy(x[i:i + 100]), torch.from_numpy(truth[i:i + 100])) for i in range(0, 500, 100)])
    theirs = peer.evaluate(Stored(centres), batches, lambda texts: torch.tensor([classes.index(t) for t in texts]), classes, ["{c}"], "cpu", amp=False)
    ours = text_classification(x, [classes[i] for i in truth], centres, classes)
    assert 30 < ours.accuracy < 99 and ours.tied == 0 and ours.top(1) == ours.accuracy
    for measured, name in ((ours.accuracy, "acc1"), (ours.top(5), "acc5"), (ours.mean_per_class, "mean_per_class_recall")): assert abs(measured / 100 - theirs[name]) < 1e-6


def clouds(n: int) -> tuple[np.ndarray, list[str]]:
    y = np.arange(n) % 6
    return unit(np.random.default_rng(1).standard_normal((6, 40))[y] * .5 + np.random.default_rng(n).standard_normal((n, 40)) + 4), [f"c{i}" for i in y]


CLASSES = [f"c{i}" for i in range(6)]


def test_long_trained_head_agrees_with_lbfgs_from_either_start():
    train, test = clouds(480), clouds(1000)
    probe = linear_probe(*train, *test, CLASSES)
    config = HeadConfig(epochs=3000)
    texts = text_head(unit(np.random.default_rng(1).standard_normal((6, 40)) * .5 + 4))
    zero = fit_head(*train, CLASSES, zero_head(6, 40), config).recognise(*test, CLASSES)
    tuned = fit_head(*train, CLASSES, texts, config)
    assert 40 < probe.accuracy < 99
    for head in (zero, tuned.recognise(*test, CLASSES)): assert abs(head.accuracy - probe.accuracy) <= .3
    for alpha, head in ((0, texts), (1, tuned)): assert np.allclose(interpolate(texts, tuned, alpha).recognise(*test, CLASSES).scores, head.recognise(*test, CLASSES).scores)


def test_all_evaluators_speak_one_language():
    train, test = clouds(240), clouds(120)
    found = [linear_probe(*train, *test, CLASSES), nearest_neighbours(*train, *test, CLASSES), linear_head(*train, *test, CLASSES, config=HeadConfig(50)),
             text_classification(*test, unit(np.random.default_rng(2).standard_normal((6, 40))), CLASSES)]
    metrics = {key: value for i, result in enumerate(found) for key, value in result.metrics(f"task{i}/clouds").items()}
    x, y = random_features(90, 16)
    facts = [f"f{i % 9}" for i in range(90)]
    table = query_table(x, y, facts, [{f} for f in facts])
    metrics |= summarise(table) | breakdown(table, ["a", "b", "c"] * 30, "source")
    rows = metric_rows(json.loads(json.dumps(metrics)))
    headline = rows[rows.metric.isin(["accuracy", "mean_recall", "by_source/a/mean_recall"])]
    assert len(headline) == len(found) + 4
    assert ((headline.low <= headline.value) & (headline.value <= headline.high)).all() and headline.chance.notna().all()


def test_invariants_hold_and_are_not_vacuous():
    x, y = random_features(300, 32, noise=.2)    # a model that has learnt: 0.2 * sqrt(32) is about the length of x
    facts = [f"f{i % 30}" for i in range(300)]
    found = retrieval_invariants(x, y, facts)
    assert found["invariant/retrieval/permuted_holds"] == found["invariant/retrieval/shuffled_holds"] == 1
    straight = evaluate_retrieval(x, y, facts, [{f} for f in facts])["retrieval/sarclip_1m/mean_recall"]
    assert straight > 5 * found["invariant/retrieval/shuffled_mean_recall"]


# What is refused: one clear sentence, and nothing compared.

def test_features_of_another_length_model_or_with_nan_are_refused():
    x, y = random_features(12, 8)
    facts, admits, ids = [str(i) for i in range(12)], [{str(i)} for i in range(12)], tuple(map(str, range(12)))
    hole = x.copy()
    hole[3, 1] = np.nan
    for images, texts, words in ((x, y[:, :5], "one width, got 8 and 5"), (x, y[:11], "12 images, 11 captions"), (hole, y, "NaN or infinity in 1 of 12 rows, first in row 3"),
                                 (Features(x, ids, "model a"), Features(y, ids, "model b"), "different models")):
        with pytest.raises(ValueError, match=words): evaluate_retrieval(images, texts, facts, admits)
        with pytest.raises(ValueError): linear_probe(images, facts, texts, facts[:len(y)], facts)
    with pytest.raises(ValueError, match="different models"): as_arrays(Features(x, ids, "model a"), Features(y, ids, "model b"))


@pytest.mark.parametrize("evaluate", [linear_probe, nearest_neighbours, linear_head])
def test_class_list_that_does_not_match_the_labels_is_refused(evaluate):
    train, test = clouds(60), clouds(30)
    with pytest.raises(ValueError, match=r"training labels hold \['c5'\].*add them or leave those images out"): evaluate(*train, *test, CLASSES[:5])
    with pytest.raises(ValueError, match="repeats a name"): evaluate(*train, *test, [*CLASSES[:5], "c0"])
    with pytest.raises(ValueError, match="test image needs one label"): evaluate(*train, test[0], test[1][1:], CLASSES)


def test_text_features_that_do_not_match_the_class_list_are_refused():
    test = clouds(30)
    with pytest.raises(ValueError, match="6 names but there are text features for 5"): text_classification(*test, unit(np.random.default_rng(2).standard_normal((5, 40))), CLASSES)


def test_checkpoint_that_does_not_fit_is_refused(tmp_path):
    weights = save_checkpoint(create("sarclip-mini"), tmp_path)
    with pytest.raises(ValueError, match="do not fit the model.*choose the backbone they were trained with"): encoder_from_file("ViT-B-32", weights)
    (tmp_path / "torn.safetensors").write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="torn.safetensors cannot be read"): encoder_from_file("sarclip-mini", tmp_path / "torn.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"): encoder_from_file("sarclip-mini", tmp_path / "nowhere.safetensors")
    with pytest.raises(ValueError, match="unknown backbone.*did you mean 'sarclip-mini'"): encoder_from_file("sarclip-mimi", weights)


def test_stored_features_are_extracted_once_and_never_mixed_up(tmp_path):
    encoder, images = create("sarclip-mini"), np.random.default_rng(0).integers(0, 256, (6, 64, 64, 1), np.uint8)
    ids = [f"image {i}" for i in range(6)]
    first = stored_features(tmp_path, encoder, images, ids)
    encoder.model.visual.forward = None    # the same weights, but unable to encode
    assert np.array_equal(stored_features(tmp_path, encoder, images, ids).values, first.values)
    path = tmp_path / "mine.safetensors"
    save_features(path, first)
    for wanted in ({"model": "another"}, {"data": "another"}, {"preprocessing": "another"}):
        with pytest.raises(ValueError, match="mine.safetensors holds features of another"): load_features(path, **wanted)


def test_a_checkpoint_given_as_a_file_goes_through_the_notebook_and_leaves_the_run_alone(studied, tmp_path):
    theirs = studied.runs / "tiny" / "sarclip-mini" / "stage1"
    before = (theirs / "04_eval_retrieval" / "metrics.json").read_bytes()
    weights = save_checkpoint(create("sarclip-mini", seed=5), tmp_path).rename(tmp_path / "peer.safetensors")
    status, output = studied.call("papermill", "nbs/04_eval_retrieval.ipynb", str(tmp_path / "out.ipynb"), "-p", "profile", "tiny", "-p", "checkpoint", str(weights), "-p", "export", "True")
    assert status == 0, output[-3000:]
    folder, = (studied.runs / "tiny" / "sarclip-mini").glob("file-peer-??????/04_eval_retrieval")
    assert "retrieval/sarclip_1m/mean_recall" in json.loads((folder / "metrics.json").read_text())
    assert len((folder / "interchange" / "test.csv").read_text().splitlines()) == 1 + len(json.loads((folder / "interchange" / "dataset.json").read_text())["images"])
    assert (theirs / "04_eval_retrieval" / "metrics.json").read_bytes() == before
