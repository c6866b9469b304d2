"""The activation cache changes nothing but the time: losses, bits, keys, storage types."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.cache.activations import Activations, compute, fetch, key_of
from mmpt.cache.store import Store
from mmpt.errors import ConfigError
from mmpt.methods import parse
from mmpt.models.adapted import AdaptedModel
from mmpt.models.engine import build_engine
from tests.methods.test_all import CASES, case
from tests.tiny import SHAPES, adapted, backbone, batch
from tests.tolerance import assert_close, terms_of

CONSTANT = [name for name in CASES if case(name).cacheable_layers.count is not None]
ORDER = [3, 0, 4, 2, 1]
KEY = "0" * 64


def build(name: str, cross_attention: str) -> AdaptedModel:
    method, options = CASES[name]
    built = replace(backbone(), cross_attention=cross_attention)
    torch.manual_seed(1)
    return build_engine(built, parse(method, options))


def cached(model: AdaptedModel, directory: Path | None, stored: torch.dtype | None = None) -> Activations:
    """The activations of the common batch, in memory or, with a directory, on disk."""
    ids, mask, _ = batch()
    lengths = mask.sum(dim=1).tolist()
    batches = [(ORDER, {"input_ids": ids[ORDER], "attention_mask": mask[ORDER]})]
    if directory is None:
        return compute(model, lengths, batches, stored)
    return fetch(Store(directory, 1), KEY, model, lengths, batches, stored)


def test_which_methods_can_use_it() -> None:
    assert set(CONSTANT) == {
        name
        for name, (method, options) in CASES.items()
        if method in ("prefix", "prefix_plus", "multimask", "apt")
        and ("encoder" not in options.get("sites", ["decoder"]) or options.get("layers", "all") != "all")
    }
    assert len(CONSTANT) >= 10


@pytest.mark.parametrize("model_type", ["bart", "pegasus"])
def test_the_encoders_output_is_a_constant_of_other_architectures_too(model_type: str) -> None:
    model = adapted("multimask", {}, model_type=model_type).eval()
    ids, mask, labels = batch()
    given = cached(model, None).batch(list(range(5)))
    plain, resumed = model(ids, mask, labels), model(ids, mask, labels, **given)
    assert_close(resumed.losses, plain.losses, terms_of(model))
    assert torch.equal(plain.route_probs, resumed.route_probs)


def losses_over_steps(model: AdaptedModel, given: dict[str, Any]) -> list[float]:
    ids, mask, labels = batch()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(4)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(ids, mask, labels, **given).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", CONSTANT)
def test_cached_absorbed_and_plain_losses_agree_over_steps(name: str, tmp_path: Path) -> None:
    _, mask, _ = batch()
    plain = losses_over_steps(build(name, "projected").train(), {})
    assert plain[-1] != plain[0]
    model = build(name, "absorbed").train()
    ram, disk = cached(model, None), cached(model, tmp_path)
    assert ram.states.shape[0] == int(mask.sum()), "padding is stored"
    assert torch.equal(ram.states, disk.states) and torch.equal(ram.means, disk.means)
    given = disk.batch(list(range(5)))
    assert losses_over_steps(model, given) == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5", "bart", "pegasus"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_going_on_inside_the_encoder_gives_its_bits(model_type: str, attention: str) -> None:
    """The position bias belongs to T5's first layer, which doesn't run when the upper ones go on."""
    options = {"sites": ["encoder", "decoder", "cross"], "layers": "last_2"}
    layers = {"encoder_layers": 4} if model_type in SHAPES else {"num_layers": 4}
    model = adapted("multimask", options, model_type=model_type, attention=attention, **layers).eval()
    ids, mask, _ = batch()
    given = cached(model, None).batch(ORDER)
    assert model.cacheable_layers.count == 2
    states = model.encode(ids[ORDER], mask[ORDER]).states
    resumed = model.resume({**given, "attention_mask": mask[ORDER]}).states
    real = mask[ORDER].bool()
    assert torch.equal(states[real], resumed[real])
    stack = model.injection.architecture.layers(model.backbone, "encoder")
    assert len(stack) == 4, "the stack lost layers"


def test_only_the_chosen_layers_carry_a_prefix() -> None:
    model = adapted("prefix", {"sites": ["encoder", "decoder"], "layers": "last_1"})
    model.injection.set(model.method(None).prefixes)
    carrying = {
        site: [module._mmpt_prefix is not None for module in modules]  # type: ignore[union-attr]
        for site, modules in model.injection.modules.items()
    }
    assert carrying == {"encoder": [False, True], "decoder": [False, False, True], "cross": [False] * 3}
    sizes = {name: tuple(p.shape) for name, p in model.method.named_parameters()}
    assert sizes == {"prefix.encoder": (10, 2 * 24), "prefix.decoder": (10, 2 * 24)}


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.layers=last_3: site encoder of this backbone has 2 layers"):
        adapted("prefix", {"sites": ["encoder"], "layers": "last_3"})
    everything = adapted("prefix", {"sites": ["encoder"], "layers": "last_2"})
    assert everything.cacheable_layers.reason == "method=prefix has a prefix in every layer of site encoder"


def test_cacheable_layers_follow_from_what_a_method_contributes() -> None:
    assert (
        build_engine(backbone(), parse("prefix", {}), dropout=True).cacheable_layers.reason == "model.dropout=backbone"
    )
    assert (
        adapted("prefix", {"sites": ["encoder"]}).cacheable_layers.reason
        == "method=prefix has a prefix in every layer of site encoder"
    )
    assert adapted("prefix", {}).cacheable_layers.count == 2
    assert adapted("prefix", {"sites": ["encoder"], "layers": "last_1"}).cacheable_layers.count == 1
    with pytest.raises(ValueError, match="method=smop puts a prompt before the text"):
        cached(case("smop"), None)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_precision_needs_half_the_room_and_is_read_in_the_models_type(stored: torch.dtype, tmp_path: Path) -> None:
    model = case("multimask-cross")
    exact, half = cached(model, None), cached(model, tmp_path, stored)
    assert half.states.dtype == stored and half.source is not None
    given, wanted = half.batch([1, 2]), exact.batch([1, 2])
    assert given["states"].dtype == torch.float32
    assert torch.equal(given["means"], wanted["means"])
    difference = (given["states"] - wanted["states"]).abs().max()
    assert 0 < difference < 0.02 * wanted["states"].abs().max()
    in_memory = cached(model, None, stored)
    assert torch.equal(in_memory.states, half.states)


def test_states_that_overflow_float16_are_an_error(tmp_path: Path) -> None:
    model = case("prefix-decoder")
    model.backbone.encoder.final_layer_norm.weight.data.mul_(1e6)
    for directory in (None, tmp_path):
        with pytest.raises(ConfigError, match=r"cache\.dtype=float16 cannot hold this backbone's states"):
            cached(model, directory, torch.float16)
    assert not [path for path in tmp_path.iterdir() if path.name != ".lock"]


def test_the_key_has_all_that_the_states_depend_on() -> None:
    inputs, cut = [[5, 6, 1], [7, 1], [8, 9, 1]], [[1, 0], [2]]

    def key(model: AdaptedModel, weights: str = "w", **changed: Any) -> str:
        given: dict[str, Any] = {"inputs": inputs, "batches": cut, **changed}
        return key_of(model, weights, given["inputs"], given["batches"], given.get("stored"))

    first = key(case("prefix-cross"))
    assert first == key(case("multimask-decoder")), "methods share the encoder's output"
    others = [
        key(case("prefix-cross"), weights="other"),
        key(case("prefix-cross"), inputs=[[5, 6, 1], [7, 1], [8, 8, 1]]),
        key(case("prefix-cross"), inputs=[[5, 6], [1, 7, 1], [8, 9, 1]]),
        key(case("prefix-cross"), batches=[[1, 0, 2]]),
        key(case("prefix-cross"), stored=torch.bfloat16),
        key(case("prefix-last")),
        key(adapted("prefix", {"sites": ["cross"]}, attention="eager")),
        key(adapted("prefix", {"sites": ["cross"]}, relative_attention_num_buckets=31)),
    ]
    bfloat16 = case("prefix-cross")
    bfloat16.backbone.to(torch.bfloat16)
    others.append(key(bfloat16))
    assert len({first, *others}) == len(others) + 1


def test_the_same_dtype_by_name_is_the_same_entry() -> None:
    model, inputs = case("prefix-cross"), [[5, 1]]
    assert key_of(model, "w", inputs, [[0]]) == key_of(model, "w", inputs, [[0]], torch.float32)


def test_a_data_worker_maps_the_file_instead_of_getting_a_copy(tmp_path: Path) -> None:
    whole = cached(case("prefix-cross"), tmp_path)
    sent = pickle.dumps(whole)
    assert len(sent) < 1000 < whole.states.numel() * 4
    assert torch.equal(pickle.loads(sent).states, whole.states)
    in_memory = pickle.loads(pickle.dumps(cached(case("prefix-cross"), None)))
    assert torch.equal(in_memory.states, whole.states)


LARGER_THAN_MEMORY = """
import resource, sys, torch
from mmpt.cache.activations import _activations
from mmpt.cache.store import Store

rows, width, step = 40_000, 512, 400  # 82 MB
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + 40_000_000, -1))
try:
    torch.empty(rows, width)
    sys.exit("the limit has no effect")
except RuntimeError:
    pass

def fill(draft):
    for first in range(0, rows, step):
        draft.put("states", first, torch.full((step, width), float(first)).view(torch.uint8).numpy().data)
    draft.put("means", 0, torch.zeros(100, width).view(torch.uint8).numpy().data)

tensors = {"means": ("F32", (100, width)), "states": ("F32", (rows, width))}
store = Store(sys.argv[1], 1)
for _ in range(2):
    mapped = store.fetch("0" * 64, tensors, fill, {}, print)
    whole = _activations(mapped, list(range(0, rows + 1, step)), torch.float32)
    total = sum(whole.batch([row])["states"][0, 0, 0].item() for row in range(100))
    print(mapped.read, total)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of private memory")
def test_more_data_than_memory_is_written_read_and_never_held(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LARGER_THAN_MEMORY, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ), cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "1980000.0", "True", "1980000.0"]
