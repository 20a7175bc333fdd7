"""The fast path gives what plain OpenCLIP gives: same loss, same gradients, from the same weights in whatever file."""
import copy
import json
from collections.abc import Callable
from pathlib import Path

import sarclip    # noqa: F401  before open_clip, which imports torchvision
import numpy as np
import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sarclip.models import encode as encoding, releases
from sarclip.training.augment import Augmentation, augment, crop_boxes, sample_boxes, turnable
from sarclip.models.batchnorm import use_exact_statistics
from sarclip.models.harma import add_harma
from sarclip.training.loss import LOSSES
from sarclip.training.microbatch import backward_in_chunks, checkpoint_activations, freeze_statistics
from sarclip.models.checkpoint import load_checkpoint, save_checkpoint
from sarclip.models.encode import encode_distinct, encode_image, encode_text
from sarclip.models.factory import create, is_resnet
from sarclip.models.releases import Release, starting_point
from sarclip.core.files import sha256_file
from sarclip.models.packing import Rows
from sarclip.models.weights import KNOWN_ARCHIVES

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"embed_dim": 64, "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}, "text_cfg": TEXT}
RESNET = {"embed_dim": 64, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 32, "head_width": 32, "patch_size": None}, "text_cfg": TEXT}
CAPTIONS = ["a ship", "a ship", "two ships near a harbor in the upper left of the image", "a SAR image of a T-72 main battle tank", "a bridge", "a ship",
            "three tanks", "a SAR image of a T-72 main battle tank", "an aircraft in the centre", "a bridge", "a car", "two ships"]


pytestmark = pytest.mark.usefixtures("one_thread")


def tokens(captions: list[str]) -> Tensor:
    return open_clip.get_tokenizer("ViT-B-32")(captions)


def batch(size: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def make(config: dict) -> nn.Module:
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    if is_resnet(model):    # trained ResNets have gains other than the zeros that end each block at the start
        for name, weight in model.named_parameters():
            if name.endswith("bn3.weight"): nn.init.uniform_(weight, 0.2, 1)
    return model.train()


def plain(model: nn.Module, images: Tensor, captions: list[str]) -> Tensor:
    "The loss as OpenCLIP's trainer computes it."
    image, text, scale = model(images, tokens(captions))
    return ClipLoss()(image, text, scale)


def fast(model: nn.Module, images: Tensor, captions: list[str]) -> Tensor:
    "The loss as this project's trainer computes it: distinct captions, trimmed tokens, channels last for a ResNet."
    if is_resnet(model):
        model.visual.to(memory_format=torch.channels_last)
        use_exact_statistics(model.visual)
        images = images.contiguous(memory_format=torch.channels_last)
    return LOSSES["clip"](encode_image(model, images), encode_text(model, tokens(captions)), model.logit_scale.exp(), captions)


def gradients(loss: Callable, model: nn.Module, *inputs: object) -> tuple[float, dict[str, Tensor]]:
    model = copy.deepcopy(model)
    total = loss(model, *inputs)
    if total.requires_grad: total.backward()
    return total.item(), {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def apart(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    "Largest relative difference of a parameter's gradient; gradients under a ten-thousandth of the whole count as that."
    assert found.keys() == wanted.keys()
    floor = 1e-4 * norm(wanted)
    return max((found[n] - g).norm() / g.norm().clamp_min(floor) for n, g in wanted.items()).item()


def norm(values: dict[str, Tensor]) -> float:
    return sum(float(g.norm()) ** 2 for g in values.values()) ** 0.5


def vit_agrees(model: nn.Module, images: Tensor, captions: list[str]) -> None:
    value, wanted = gradients(plain, model, images, captions)
    found_value, found = gradients(fast, model, images, captions)
    assert abs(found_value - value) <= 1e-5 * value
    assert apart(found, wanted) <= 1e-5


def resnet_agrees(model: nn.Module, batches: list[Tensor], captions: list[str]) -> None:
    """Float32 gradients through BatchNorm are a thousandth off, whoever computes them: the yardstick is float64.

    Rounding is luck, so the error is that of several batches together, and a tenth more than plain OpenCLIP's counts as equal.
    """
    error = {plain: 0.0, fast: 0.0}
    for images in batches:
        exact_value, exact = gradients(plain, copy.deepcopy(model).double(), images.double(), captions)
        for loss in error:
            value, found = gradients(loss, model, images, captions)
            assert abs(value - exact_value) <= 1e-5 * exact_value
            error[loss] += norm({n: found[n] - exact[n] for n in exact}) / norm(exact)
    assert 0 < error[fast] <= 1.1 * error[plain] < 0.05 * len(batches)


def test_vit_agrees_with_open_clip():
    vit_agrees(make(VIT), batch(64, len(CAPTIONS)), CAPTIONS)


@pytest.mark.parametrize("change", [{"pool_type": "avg"}, {"final_ln_after_pool": True}, {"attentional_pool": True}, {"ls_init_value": 0.1}, {"no_ln_pre": True}])
def test_other_vits_encode_as_open_clip(change: dict):
    "What the packed path does not cover is left to OpenCLIP, and what it covers stays equal."
    model, images = make(VIT | {"vision_cfg": VIT["vision_cfg"] | change}).eval(), batch(64, 3)
    with torch.no_grad(): assert (encode_image(model, images) - model.encode_image(images, normalize=True)).abs().max() < 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_captions_that_begin_alike_are_encoded_as_open_clip_does(seed: int, monkeypatch: pytest.MonkeyPatch):
    "Sorted or not, with repeats, with one caption the beginning of another, and one as long as the tower takes."
    rng, model = np.random.default_rng(seed), make(VIT)
    for name, p in model.named_parameters():
        if name.endswith("bias"): nn.init.normal_(p, std=0.1)
    words = [rng.integers(1, 4, rng.integers(0, 9)).tolist() for _ in range(20)] + [rng.integers(1, 4, 75).tolist()]
    words = [caption for caption in words for _ in range(rng.integers(1, 3))]
    rows = torch.zeros(len(words), model.context_length, dtype=torch.long)
    for row, caption in zip(rows, words): row[:len(caption) + 2] = torch.tensor([model.vocab_size - 2, *caption, model.vocab_size - 1])
    weight = torch.randn(len(rows), model.text_projection.shape[1], generator=torch.Generator().manual_seed(seed))
    parameters = [p for name, p in model.named_parameters() if not name.startswith("visual") and name != "logit_scale"]
    theirs = model.encode_text(rows, normalize=True)
    wanted = torch.autograd.grad((theirs * weight).sum(), parameters)
    computed, plain_read = [], encoding.read_tokens
    monkeypatch.setattr(encoding, "read_tokens", lambda transformer, x, *rest, **named: computed.append(len(x)) or plain_read(transformer, x, *rest, **named))
    for encode in (encode_text, encode_distinct):
        ours = encode(model, rows)
        assert (ours - theirs).abs().max() < 1e-5
        found = torch.autograd.grad((ours * weight).sum(), parameters)
        assert apart(dict(enumerate(found)), dict(enumerate(wanted))) <= 1e-5
    beginnings = {tuple(caption[:k]) for caption in words for k in range(len(caption) + 1)} | {(*caption, None) for caption in words}
    assert computed[0] == len(beginnings) < computed[1] < sum(len(caption) + 2 for caption in words)    # sorted, all is found


def test_a_row_shows_no_gap_of_the_row_above():
    "Tokens behind the end of a caption are not its own, whatever they are."
    model = make(VIT)
    rows = torch.tensor([[1, 5, 3, 0], [1, 5, 3, 9], [1, 5, 3, 9]])    # the highest number ends a caption
    assert (encode_distinct(model, rows) - torch.cat([encode_distinct(model, row[None]) for row in rows])).abs().max() < 1e-6


def test_gradients_of_a_shared_token_are_added_in_float32():
    "In bfloat16, on a GPU, a few hundred equal parts stop growing halfway."
    class Added(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Callable, types: object, inputs: tuple = (), options: dict | None = None) -> object:
            if "index_add" in str(operator) or "scatter_add" in str(operator): kinds.add(inputs[0].dtype)
            return operator(*inputs, **(options or {}))
    kinds = set()
    x = torch.zeros(4, 1, dtype=torch.bfloat16, requires_grad=True)
    y = Rows.of(torch.tensor([2, 2, 2]), torch.tensor([0, 1, 1])).apart(x)
    with Added(): y.backward(torch.ones_like(y))
    assert kinds == {torch.float32} and x.grad.dtype == torch.bfloat16 and x.grad[:, 0].tolist() == [3, 1, 1, 1]


def test_resnet_is_as_exact_as_open_clip():
    resnet_agrees(make(RESNET), [batch(64, len(CAPTIONS), seed) for seed in range(3)], CAPTIONS)


@pytest.mark.slow
def test_vit_b_32_agrees_with_open_clip():
    vit_agrees(create("ViT-B-32").model.train(), batch(224, 8), CAPTIONS[:8])


@pytest.mark.slow
def test_rn50_is_as_exact_as_open_clip():
    resnet_agrees(create("RN50").model.train(), [batch(224, 8)], CAPTIONS[:8])


def test_a_changed_token_is_noticed():
    "The comparison above can fail: a caption cut one token short gives other gradients."
    model = make(VIT)
    _, wanted = gradients(plain, model, batch(64, 2), ["two ships", "a bridge over a river"])
    _, found = gradients(fast, model, batch(64, 2), ["two ships", "a bridge over a"])
    assert apart(found, wanted) > 1e-2


@pytest.mark.parametrize("loss", ["clip", "facts", "harma"])
@pytest.mark.parametrize("micro_batch", [1, 5, 12, 64])
def test_micro_batches_change_nothing(loss: str, micro_batch: int):
    model, images = make(VIT), batch(64, len(CAPTIONS))
    def contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor: return LOSSES[loss](image, text, scale, CAPTIONS)
    value, wanted = gradients(lambda m: contrast(encode_image(m, images), encode_text(m, tokens(CAPTIONS)), m.logit_scale.exp()), model)
    found_value, found = gradients(lambda m: backward_in_chunks(m, images, tokens(CAPTIONS), contrast, micro_batch), model)
    assert abs(found_value - value) <= 1e-5 * value and apart(found, wanted) <= 1e-5


def test_micro_batches_refuse_batch_statistics():
    model, images = make(RESNET), batch(64, len(CAPTIONS))
    def contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor: return LOSSES["clip"](image, text, scale, CAPTIONS)
    with pytest.raises(ValueError, match="BatchNorm layer 'visual.bn1'; freeze them"): backward_in_chunks(model, images, tokens(CAPTIONS), contrast, 4)
    assert all(p.grad is None for p in model.parameters())
    freeze_statistics(model)
    value, wanted = gradients(lambda m: contrast(encode_image(m, images), encode_text(m, tokens(CAPTIONS)), m.logit_scale.exp()), model)
    found_value, found = gradients(lambda m: backward_in_chunks(m, images, tokens(CAPTIONS), contrast, 5), model)
    assert abs(found_value - value) <= 1e-5 * value and apart(found, wanted) <= 1e-4


def test_checkpointed_activations_change_nothing():
    model = make(VIT)
    _, wanted = gradients(fast, model, batch(64, 12), CAPTIONS)
    checkpoint_activations(model)
    _, found = gradients(fast, model, batch(64, 12), CAPTIONS)
    assert apart(found, wanted) <= 1e-6
    with pytest.raises(ValueError, match="transformers only"): checkpoint_activations(make(RESNET))


def test_text_gradients_repeat_on_several_threads():
    torch.set_num_threads(4)
    model = make(VIT)
    captions = [CAPTIONS[i % 3] for i in range(64)]
    runs = [gradients(lambda m: (encode_text(m, tokens(captions)) * batch(8, 64).view(64, -1)[:, :64]).sum(), model)[1] for _ in range(5)]
    assert all(torch.equal(runs[0][n], other[n]) for other in runs[1:] for n in runs[0])


# What files hold weights in

@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    "A ViT known to OpenCLIP under a name, with its QuickGELU sister, and as something that somebody released."
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    (tmp_path / "configs").mkdir()
    for name, quick in (("tiny", False), ("tiny-quickgelu", True)): (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(VIT | {"quick_gelu": quick}))
    open_clip.add_model_config(tmp_path / "configs")
    monkeypatch.setitem(releases.RELEASES, "rs5m", {"tiny": Release("Somebody", "https://example.org", "tiny.pt", "state dict", "tiny-quickgelu")})
    return "tiny"


def write(model: nn.Module, kind: str, path: Path) -> Path:
    state = model.state_dict()
    if kind == "safetensors": save_file(state, path := path.with_suffix(".safetensors"))
    if kind == "state dict": torch.save(state, path)
    if kind == "checkpoint": torch.save({"epoch": 20, "name": "run", "optimizer": {"state": {}}, "state_dict": {f"module.{n}": v for n, v in state.items()}}, path)
    if kind == "TorchScript":    # as OpenAI's: half precision, and a setting beside the weights
        model = copy.deepcopy(model).half().eval()
        model.register_buffer("input_resolution", torch.tensor(64))
        torch.jit.save(torch.jit.script(model), path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "checkpoint", "TorchScript"])
def test_every_released_format_loads(kind: str, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = create(f"{tiny}-quickgelu", seed=5)
    path = write(source.model, kind, tmp_path / "weights.pt")
    if kind == "TorchScript": monkeypatch.setitem(KNOWN_ARCHIVES, sha256_file(path), "made here")
    encoder = starting_point("rs5m", tiny, weights=path)
    assert encoder.backbone == "tiny-quickgelu"    # what the release was trained as
    wanted = source.model.state_dict()
    for name, value in encoder.model.state_dict().items():
        assert value.dtype == wanted[name].dtype and torch.allclose(value, wanted[name], rtol=0 if kind != "TorchScript" else 1e-3, atol=0 if kind != "TorchScript" else 1e-4), name
    with torch.no_grad(): assert (encode_image(encoder.model, batch(64, 2)) - encode_image(source.model, batch(64, 2))).abs().max() < (1e-6 if kind != "TorchScript" else 1e-2)


def test_quickgelu_mismatch_is_caught(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick = write(create("tiny-quickgelu").model, "TorchScript", tmp_path / "quick.pt")
    smooth = write(create("tiny").model, "TorchScript", tmp_path / "smooth.pt")
    for archive in (quick, smooth): monkeypatch.setitem(KNOWN_ARCHIVES, sha256_file(archive), "made here")
    with pytest.raises(ValueError, match="trained with QuickGELU and backbone 'tiny' computes GELU; choose tiny-quickgelu"): create("tiny", weights=quick)
    with pytest.raises(ValueError, match="trained with GELU and backbone 'tiny-quickgelu' computes QuickGELU; choose tiny$"): create("tiny-quickgelu", weights=smooth)
    with pytest.raises(ValueError, match="trained with GELU"): starting_point("rs5m", "tiny", weights=smooth)
    folder = tmp_path / "checkpoint"
    save_checkpoint(create("tiny-quickgelu"), folder)    # our own checkpoints name theirs too
    with pytest.raises(ValueError, match="choose tiny-quickgelu"): create("tiny", weights=folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "checkpoint"])
def test_missing_and_unexpected_weights_are_named(kind: str, tiny: str, tmp_path: Path):
    model = create(tiny).model
    class Short(nn.Module):
        def state_dict(self) -> dict[str, Tensor]:
            return {n: v for n, v in model.state_dict().items() if n != "ln_final.bias"} | {"head.weight": torch.ones(2)}
    path = write(Short(), kind, tmp_path / "short.pt")
    with pytest.raises(ValueError, match=r"1 missing \(ln_final.bias\); 1 unexpected \(head.weight\)"): create(tiny, weights=path)
    with pytest.raises(ValueError, match=r"do not fit the model: 1 unexpected"): create(tiny, weights=path, allow=["ln_final.*"])
    assert create(tiny, weights=path, allow=["ln_final.bias", "head.weight"]).backbone == tiny


def test_adapters_survive_a_checkpoint(tmp_path: Path):
    encoder = add_harma(create("sarclip-mini"), width=32, heads=4)
    with torch.no_grad():
        for parameter in encoder.model.harma.parameters(): parameter.add_(0.01)
    save_checkpoint(encoder, tmp_path)
    back = load_checkpoint(tmp_path)
    with torch.no_grad():
        assert torch.equal(encode_image(back.model, batch(64, 3)), encode_image(encoder.model, batch(64, 3)))
        assert torch.equal(encode_text(back.model, tokens(CAPTIONS)), encode_text(encoder.model, tokens(CAPTIONS)))
        assert not torch.allclose(encode_image(back.model, batch(64, 3)), encode_image(create("sarclip-mini").model, batch(64, 3)), atol=1e-3)


# The random crop, redone on tensors

def test_crops_are_torchvisions():
    from torchvision.transforms import functional as TF
    images = torch.randint(0, 256, (5, 1, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = crop_boxes(5, 224, torch.Generator().manual_seed(1), (0.9, 1.0))
    for image, (left, upper, width, height), found in zip(images, boxes.int().tolist(), sample_boxes(images, boxes)):
        assert (found - TF.resized_crop(image.float(), upper, left, height, width, [224, 224], antialias=True)).abs().max() < 0.1    # of 255 gray levels


def test_a_crop_is_redrawn_for_each_step_and_repeats_with_its_seed():
    images = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, again, other = (augment(images, torch.Generator().manual_seed(seed), (0.5,) * 3, (0.5,) * 3) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_captions_with_places_are_never_turned():
    images = torch.randint(0, 256, (64, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    facts = ['[["at","ship",1,"upper left"]]', '[["is","T-72 main battle tank"]]'] * 32
    still = Augmentation(crop_scale=(1.0, 1.0))
    turning = Augmentation(crop_scale=(1.0, 1.0), flip_horizontal=True, flip_vertical=True, quarter_turns=True)
    before, after = (augment(images, torch.Generator().manual_seed(0), (0, 0, 0), (1, 1, 1), a, turnable(facts)) for a in (still, turning))
    same = (before - after).abs().amax((1, 2, 3)) < 1e-3
    assert same[::2].all() and 0 < same[1::2].sum() < 16    # one of eight orientations is the original
