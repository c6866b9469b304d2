"""The product's own classes against tensors that the published code computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.reference.replay import build_model, main, read, replay

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*.safetensors"))
COUPLED = [path for path in CASES if "batch_coupled" in path.name]
FAITHFUL = [path for path in CASES if path not in COUPLED]


def acting(tensor: Tensor) -> Tensor:
    """Of a six-dimensional out.prefix, the two planes that T5 reads."""
    return tensor[:, :2] if tensor.dim() == 6 else tensor


def test_all_cases_are_here() -> None:
    assert (len(FAITHFUL), len(COUPLED)) == (10, 2)


@pytest.mark.parametrize("path", FAITHFUL, ids=lambda path: path.stem)
def test_equals_the_published_code(path: Path) -> None:
    meta, tensors = read(str(path))
    result = replay(meta, tensors)
    assert set(result) == {name for name in tensors if name.startswith(("out.", "grad."))}
    for name, value in result.items():
        golden = acting(tensors[name])
        if name == "out.generated":
            assert torch.equal(value, golden)
            continue
        scale = golden.abs().max().clamp(min=1e-12) if name.startswith("grad.") else 1.0
        assert value.shape == golden.shape
        assert ((value - golden).abs().max() / scale).item() < 1e-5, name


@pytest.mark.parametrize("path", FAITHFUL, ids=lambda path: path.stem)
def test_an_adapted_model_gives_the_published_logits_by_itself(path: Path) -> None:
    meta, tensors = read(str(path))
    engine, _ = build_model(meta, tensors)
    given = {name: tensors[f"in.{name}"] for name in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        out = engine.backbone(**given)
    assert (out.logits - tensors["out.logits"]).abs().max() < 1e-5
    assert (out.loss - tensors["out.loss"]).abs() < 1e-5


@pytest.mark.parametrize("path", COUPLED, ids=lambda path: path.stem)
def test_an_example_has_its_own_selection_only(path: Path) -> None:
    meta, tensors = read(str(path))
    result = replay(meta, tensors)
    probs = tensors["out.router_probs"]
    tokens = meta["method_config"]["num_virtual_tokens"]
    table = tensors["method.embedding.weight"].unflatten(0, (-1, tokens))
    gate, chosen = probs.max(dim=-1)
    own = gate[:, None, None] * table[chosen]  # (B, v, ...)
    if "method.sharedEmbedding.weight" in tensors:
        shared = tensors["method.sharedEmbedding.weight"].expand(probs.shape[0], -1, -1)
        mask = torch.cat(
            [tensors["method.mask"].expand(probs.shape[0], -1, -1), tensors["method.subsetMask"][chosen]], dim=1
        )  # (B, P, L)
        layers = mask.shape[-1]
        slots = torch.cat([shared, own], dim=1).unflatten(-1, (2 * layers, -1))
        slots = slots * torch.sigmoid(mask[..., [j % layers for j in range(2 * layers)]]).unsqueeze(-1)
        heads = slots.unflatten(-1, (meta["t5_config"]["num_heads"], -1))  # (B, P, 2L, H, k)
        expected = torch.stack([heads[:, :, [(4 * i + c) % (2 * layers) for i in range(layers)]] for c in (0, 1)])
        expected = expected.permute(3, 0, 1, 4, 2, 5)
    else:
        expected = own
    assert torch.allclose(result["out.prefix"], expected, atol=1e-6)
    assert (result["out.logits"] - tensors["out.logits"]).abs().max() > 1e-2, "the published coupling is back"
    for row in range(probs.shape[0]):
        one = {k: v[row : row + 1] if k.startswith("in.") else v for k, v in tensors.items()}
        alone = replay(meta, one)["out.logits"][0]
        assert torch.allclose(alone, result["out.logits"][row], atol=1e-5)


def test_command_writes_the_same(tmp_path: Path) -> None:
    case = FAITHFUL[0]
    target = tmp_path / "out ü.safetensors"
    main([str(case), str(target)])
    written, again = load_file(target), replay(*read(str(case)))
    assert written.keys() == again.keys()
    assert all(torch.allclose(written[name], again[name], atol=1e-6) for name in written)
