"""Several adapters of one backbone at once: ``mmpt.load_all({"a": DIR, "b": DIR}).predict(rows, adapters=["a", "b"])``.

Letters: B rows of a batch, C label words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmpt.errors import AdapterError, nearest
from mmpt.methods import method_class
from mmpt.models.adapted import Encoded
from mmpt.models.adapter_files import read_adapter
from mmpt.models.located import located
from mmpt.models.stacking import passes
from mmpt.predictor import Predictor, load
from mmpt.training.evaluate import Evaluator, Predictions, Prepared

Row = tuple[str, int]  # an adapter's name, and the number of one of its examples


@dataclass(frozen=True)
class _Results:
    """Predictions for one adapter's examples; ``probabilities`` (N, C) for ranking."""

    split: Prepared
    texts: list[str]
    probabilities: torch.Tensor | None


class MultiAdapterPredictor:
    """One backbone with several adapters; each row is predicted by the adapter that it names.

    Attributes:
        predictors: By name; each can also be used by itself.
        passes: Names of the adapters that share a pass through the network. Adapters run separately if their prefixes
            cannot be stacked (a gate of the output, other layers, layout ``paper``), or if they decode in another way.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        """Join predictors that share a backbone; :func:`load_all` is the usual way."""
        self.predictors = dict(predictors)
        self.backbone = next(iter(self.predictors.values())).backbone
        self.passes: list[list[str]] = []
        alike: dict[tuple[Any, ...], list[str]] = {}
        for name, predictor in self.predictors.items():
            alike.setdefault(_decoding(predictor.evaluator), []).append(name)
        for names in alike.values():
            models = {name: self.predictors[name].model for name in names}
            shapes = models[names[0]].injection.shapes
            self.passes += passes({name: model.method for name, model in models.items()}, shapes)

    def predict(self, rows: Iterable[Mapping[str, Any]], adapters: Iterable[str]) -> list[dict[str, Any]]:
        """Predict rows, each with an adapter of its own.

        Args:
            rows: Mappings with the fields that the template of the row's own adapter names; a label is not needed.
            adapters: A name for each row.

        Returns:
            What :meth:`mmpt.predictor.Predictor.predict` gives for each row, and ``adapter``, in the order of the rows.
            It equals running the adapters separately, up to rounding.

        Raises:
            AdapterError: A name is that of no adapter, or there are more or fewer names than rows.
            DataError: A row lacks a field.
        """
        located = ((f"row {number}", dict(row)) for number, row in enumerate(rows, start=1))
        return self.predict_located(located, adapters)

    def predict_located(
        self, rows: Iterable[tuple[str, dict[str, Any]]], adapters: Iterable[str]
    ) -> list[dict[str, Any]]:
        """Predict pairs of where a row was read and the row, as ``mmpt.data.files.read_rows`` gives them."""
        given, names = list(rows), list(adapters)
        if len(given) != len(names):
            raise AdapterError(f"{len(given)} rows, but {len(names)} names of adapters; give one a row")
        examples: dict[str, list[Any]] = {name: [] for name in self.predictors}
        order: list[Row] = []
        for (where, row), name in zip(given, names, strict=True):
            if name not in self.predictors:
                known = ", ".join(self.predictors)
                raise AdapterError(f"{where}: no adapter {name!r}; loaded are {known}{nearest(name, self.predictors)}")
            for example in self.predictors[name].evaluator.task.examples([(where, row)], require_label=False):
                order.append((name, len(examples[name])))
                examples[name].append(example)
        results = {name: self._results(name, part) for name, part in examples.items() if part}
        with self.backbone.lock:
            for members in self.passes:
                present = [name for name in members if name in results]
                if len(present) == 1:
                    results[present[0]] = self._alone(present[0], results[present[0]])
                elif present:
                    self._run(present, results)
        return _rows({name: self.predictors[name].evaluator for name in results}, results, order)

    def _results(self, name: str, examples: Sequence[Any]) -> _Results:
        evaluator = self.predictors[name].evaluator
        split = evaluator.prepare(examples)
        ranked = evaluator.config.decoding[0] == "ranking"
        probabilities = torch.zeros(len(examples), len(evaluator.candidates)) if ranked else None
        return _Results(split, [""] * len(examples), probabilities)

    def _alone(self, name: str, result: _Results) -> _Results:
        predictor = self.predictors[name]
        decoding = predictor.evaluator.config.decoding[0]
        predicted = predictor.evaluator.predict(predictor.model, result.split, decoding)
        return _Results(result.split, predicted.texts, predicted.probabilities)

    @torch.no_grad()
    def _run(self, names: Sequence[str], results: Mapping[str, _Results]) -> None:
        """Predict all examples of adapters that share a pass, in batches of similar length."""
        size = min((self.predictors[name].evaluator.config.batch_size for name in names), default=1)
        for rows in _batches({name: results[name].split.longest for name in names}, size):
            first = self.predictors[rows[0][0]]
            features = [{"input_ids": results[name].split.features[row]["input_ids"]} for name, row in rows]
            device = next(first.model.parameters()).device
            batch = {key: value.to(device) for key, value in first.evaluator.collate(features).items()}
            own = [self.predictors[name].model.name for name, _ in rows]
            shared = own if len(set(own)) > 1 else None
            encoded = first.model.encode(batch["input_ids"], batch["attention_mask"], shared)
            self._read(rows, encoded, results)

    def _read(self, rows: Sequence[Row], encoded: Encoded, results: Mapping[str, _Results]) -> None:
        """Rank or generate a batch, and store the predictions."""
        first = self.predictors[rows[0][0]]
        if results[rows[0][0]].probabilities is None:
            texts = first.evaluator.generate(first.model, encoded)
            for (name, row), text in zip(rows, texts, strict=True):
                results[name].texts[row] = text
            return
        candidates = [self.predictors[name].evaluator.candidates for name, _ in rows]
        model: Any = first.model  # writes text: a classification head shares no pass
        likelihoods = model.likelihoods_of_rows(encoded, candidates).cpu()
        for (name, row), values, own in zip(rows, likelihoods, candidates, strict=True):
            scores, probabilities = values[: len(own)], results[name].probabilities
            assert probabilities is not None
            probabilities[row] = torch.softmax(scores, dim=-1)
            results[name].texts[row] = self.predictors[name].evaluator.task.words[int(scores.argmax())]


def load_all(
    directories: Mapping[str, str | Path], *, model: str | None = None, force: bool = False
) -> MultiAdapterPredictor:
    """Load several adapters of one backbone, which is loaded once.

    Args:
        directories: Names, and what :func:`mmpt.load` takes.
        model: The directory of the backbone, where it has moved.
        force: Accept another tokenizer than an adapter was trained with.

    Raises:
        AdapterError: As of :func:`mmpt.load`; or an adapter's method changes the backbone itself (lora, ia3, full), or
            its backbone is another one. Load both kinds separately, with :func:`mmpt.load`.
    """
    if not directories:
        raise AdapterError("no adapter to load; give names and run directories")
    paths = {name: located(directory) for name, directory in directories.items()}
    for name, path in paths.items():
        method = read_adapter(path).method
        if method_class(method).changes_backbone():
            raise AdapterError(
                f"adapter {name!r} ({path}): method={method} changes the backbone's own layers, so its rows cannot "
                "share a batch with those of others; load it by itself with mmpt.load"
            )
    predictors = {name: load(path, model=model, force=force) for name, path in paths.items()}
    first = next(iter(predictors))
    if predictors[first].backbone.architecture.has_head and len(predictors) > 1:
        raise AdapterError(
            f"adapters {', '.join(map(repr, predictors))} have classification heads of their own, which lie in the "
            "model, so their rows cannot share a batch; load each by itself with mmpt.load"
        )
    for name, predictor in predictors.items():
        if predictor.backbone is not predictors[first].backbone:
            raise AdapterError(
                f"adapters {first!r} and {name!r} do not share a backbone ({predictors[first].backbone.origin}, "
                f"{predictor.backbone.origin}, or another dtype or attention); load each by itself with mmpt.load"
            )
    return MultiAdapterPredictor(predictors)


def _decoding(evaluator: Evaluator) -> tuple[Any, ...]:
    """How an adapter's task is decoded: what rows of one batch must have in common."""
    config = evaluator.config
    if config.decoding[0] == "ranking":
        return ("ranking",)
    return (config.decoding[0], config.max_new_tokens, config.key_cache)


def _batches(lengths: Mapping[str, Sequence[int]], size: int) -> Iterator[list[Row]]:
    """Rows of each batch, of similar length."""
    rows = [(length, name, row) for name, own in lengths.items() for row, length in enumerate(own)]
    rows.sort(key=lambda item: item[0])
    for start in range(0, len(rows), size):
        yield [(name, row) for _, name, row in rows[start : start + size]]


def _rows(
    evaluators: Mapping[str, Evaluator], results: Mapping[str, _Results], order: Sequence[Row]
) -> list[dict[str, Any]]:
    predicted = {
        name: evaluators[name].rows(result.split, Predictions(result.texts, result.probabilities, None, None))
        for name, result in results.items()
    }
    return [{**predicted[name][row], "adapter": name} for name, row in order]
