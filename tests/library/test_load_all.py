"""Several adapters in one process: one copy of the weights, and batches that mix them by name."""

from __future__ import annotations

import gc
import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import mmpt
from mmpt.bundled.tasks import records
from mmpt.errors import AdapterError
from tests.adapters import save
from tests.commands import predict as main

WAYS = {
    "routed": ["task=rte", "method=multimask"],
    "other": ["task=cb", "method=multimask", "method.num_routes=2", "method.num_virtual_tokens=4"],
    "plain": ["task=rte", "method=prefix", "method.sites=[encoder,decoder]"],
    "smop": ["task=boolq", "method=smop"],
    "gated": ["task=rte", "method=prefix", "method.gate=true"],
    "writes": ["task=rte", "method=multimask", "evaluation.decoding=[generation]", "evaluation.max_new_tokens=4"],
}
TASKS = {name: words[0].removeprefix("task=") for name, words in WAYS.items()}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {name: save(root / name, *words, seed=number) for number, (name, words) in enumerate(WAYS.items())}


def mixture(count: int = 5) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of all adapters' tasks, interleaved, and the adapter of each."""
    pairs = [(records(TASKS[name])["test"][number], name) for number in range(count) for name in WAYS]
    return [row for row, _ in pairs], [name for _, name in pairs]


def alike(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two predictions are equal up to rounding."""
    found, wanted = dict(found), dict(wanted)
    ours, theirs = found.pop("probabilities", {}), wanted.pop("probabilities", {})
    return found == wanted and ours == pytest.approx(theirs, abs=1e-5)


def test_a_mixed_batch_equals_running_apart(places: dict[str, Path]) -> None:
    mixed = mmpt.load_all(places)
    assert mixed.passes == [["routed", "other", "plain", "smop"], ["gated"], ["writes"]]
    rows, names = mixture()
    found = mixed.predict(rows, names)
    for name, place in places.items():
        mine = [row for row, own in zip(rows, names, strict=True) if own == name]
        wanted = [{**row, "adapter": name} for row in mmpt.load(place).predict(mine)]
        got = [row for row in found if row["adapter"] == name]
        renumbered = [{**row, "id": other["id"]} for row, other in zip(got, wanted, strict=True)]
        assert all(map(alike, renumbered, wanted)), name
    probabilities = [tuple(row["probabilities"].values()) for row in found if row["adapter"] in ("routed", "plain")]
    assert len(set(probabilities)) == len(probabilities)  # the adapters do differ
    assert [row["adapter"] for row in found] == names


def test_loading_twice_shares_the_weights(places: dict[str, Path], tmp_path: Path) -> None:
    first, second = mmpt.load(places["routed"]), mmpt.load(places["smop"])
    assert first.model.backbone is second.model.backbone
    assert first.model.method is not second.model.method
    row = records("rte")["test"][0]
    before = first.predict([row])
    second.predict([records("boolq")["test"][0]])
    inside = mmpt.load(save(tmp_path, "task=rte", "method=lora"))
    assert inside.model.backbone is not first.model.backbone  # peft's layers are in it
    assert first.predict([row]) == before


def test_threads_take_turns_on_a_shared_backbone(places: dict[str, Path]) -> None:
    rows = records("rte")["test"][:40]
    predictors = [mmpt.load(places[name]) for name in ("routed", "plain")]
    wanted = [predictor.predict(rows) for predictor in predictors]
    found: list[Any] = [None, None]

    def work(number: int) -> None:
        torch.set_num_threads(1)
        found[number] = predictors[number].predict(rows)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


def test_no_thread_sees_an_adapter_that_another_one_loads_or_frees(places: dict[str, Path]) -> None:
    row = records("rte")["test"][0]
    predictor, freed = mmpt.load(places["plain"]), mmpt.load(places["routed"])
    wanted = predictor.predict([row])
    freed.itself = freed  # type: ignore[attr-defined] # a cycle, which the collector frees at any time
    del freed
    late: list[Any] = []

    def disturb(*_: Any) -> None:
        gc.collect()
        thread = threading.Thread(target=lambda: late.append(mmpt.load(places["smop"])))
        thread.start()
        thread.join(0.5)
        assert not late  # it waits for the prediction
        threads.append(thread)

    threads: list[threading.Thread] = []
    handle = predictor.backbone.model.get_encoder().register_forward_pre_hook(disturb, prepend=True)
    assert predictor.predict([row]) == wanted
    handle.remove()
    for thread in threads:
        thread.join()
    assert len(late) == 1 and predictor.predict([row]) == wanted


def test_threads_cut_texts_at_the_same_length(places: dict[str, Path]) -> None:
    """A tokenizer has a state, which is its truncation."""
    predictor = mmpt.load(places["plain"])
    rows = [
        {"premise": "a dog ran over the hill " * 80, "hypothesis": "a cat sat"},
        {"premise": "a", "hypothesis": "b"},
    ]
    start, widths = predictor.model.start, set()

    def seen(batch: Any) -> Any:
        widths.add(batch["input_ids"].shape[1])
        return start(batch)

    predictor.model.start = seen  # type: ignore[method-assign]
    predictor.predict(rows)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [predictor.predict(rows) for _ in range(15)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(widths) == 1


def test_rows_of_a_mixture_are_ranked_among_their_own_labels(tmp_path: Path) -> None:
    places = {
        "mix": save(tmp_path / "mix", "task=mix", "mix.tasks=[rte,boolq]", "method=multimask"),
        "rte": save(tmp_path / "rte", "task=rte", "method=multimask", seed=1),
    }
    rows = [{"task": name, **records(name)["test"][0]} for name in ("rte", "boolq")]
    alone = mmpt.load(places["mix"]).predict(rows)
    mixed = mmpt.load_all(places)
    assert mixed.passes == [["mix", "rte"]]
    found = mixed.predict([*rows, records("rte")["test"][1]], ["mix", "mix", "rte"])
    for ours, wanted in zip(found, alone, strict=False):
        assert alike(ours, {**wanted, "adapter": "mix"})


def test_what_cannot_be_mixed_is_named(places: dict[str, Path], tmp_path: Path) -> None:
    inside = save(tmp_path / "l", "task=rte", "method=lora")
    with pytest.raises(AdapterError, match=r"adapter 'l' .*method=lora changes the backbone's own layers.*mmpt.load"):
        mmpt.load_all({"a": places["routed"], "l": inside})
    other = save(tmp_path / "o", "task=rte", "method=prefix", "model.attention=eager")
    with pytest.raises(AdapterError, match="'a' and 'o' do not share a backbone"):
        mmpt.load_all({"a": places["routed"], "o": other})
    with pytest.raises(AdapterError, match="no adapter to load"):
        mmpt.load_all({})
    mixed = mmpt.load_all({"routed": places["routed"], "smop": places["smop"]})
    row = records("rte")["test"][0]
    unknown = r"row 2: no adapter .rooted.; loaded are routed, smop; did you mean \"routed\"\?"
    with pytest.raises(AdapterError, match=unknown):
        mixed.predict([row, row], ["routed", "rooted"])
    with pytest.raises(AdapterError, match="2 rows, but 1 names"):
        mixed.predict([row, row], ["routed"])
    assert mixed.predict([], []) == []


def test_on_the_command_line(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows, names = mixture(2)
    text = "".join(json.dumps({**row, "by": name}) + "\n" for row, name in zip(rows, names, strict=True))
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    words = [f"{name}={place}" for name, place in places.items()]
    target = tmp_path / "out.jsonl"
    assert main([*words, "--input", "-", "--adapter-field", "by", "--output", str(target)]) == 0
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [row["adapter"] for row in found] == names
    file = tmp_path / "rows.jsonl"
    file.write_text(text, encoding="utf-8")
    for arguments, message in (
        (words, "no field 'adapter' that names the row's adapter"),
        ([words[0], str(places["smop"])], "several adapters need names"),
        ([words[0], words[0]], "two adapters have the same name"),
    ):
        capsys.readouterr()
        assert main([*arguments, "--input", str(file)]) == 2
        assert message in capsys.readouterr().err
