"""Several adapters of one backbone in one batch: ``mmpt.load_all({"a": DIR, "b": DIR}).predict(rows, ["a", "b"])``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmpt.errors import AdapterError, nearest
from mmpt.methods import method_class
from mmpt.models.adapter_files import read_adapter
from mmpt.models.saving import located
from mmpt.models.stacking import passes
from mmpt.predictor import Predictor, load
from mmpt.training.evaluate import Evaluator, Predictions, Prepared


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
        order: list[tuple[str, int]] = []  # an adapter's name, and the number of one of its examples
        for (where, row), name in zip(given, names, strict=True):
            if name not in self.predictors:
                known = ", ".join(self.predictors)
                raise AdapterError(f"{where}: no adapter {name!r}; loaded are {known}{nearest(name, self.predictors)}")
            for example in self.predictors[name].evaluator.task.examples([(where, row)], require_label=False):
                order.append((name, len(examples[name])))
                examples[name].append(example)
        predicted: dict[str, list[dict[str, Any]]] = {}
        with self.backbone.lock:  # tokenizers have a state too
            splits = {name: self.predictors[name].evaluator.prepare(part) for name, part in examples.items() if part}
            for members in self.passes:
                present = {name: splits[name] for name in members if name in splits}
                run = self._together if len(present) > 1 else self._alone
                for name, each in run(present).items():
                    predicted[name] = self.predictors[name].evaluator.rows(present[name], each)
        return [{**predicted[name][row], "adapter": name} for name, row in order]

    def _alone(self, splits: Mapping[str, Prepared]) -> dict[str, Predictions]:
        found = {}
        for name, split in splits.items():
            own = self.predictors[name]
            found[name] = own.evaluator.predict(own.model, split, own.evaluator.config.decoding[0])
        return found

    @torch.no_grad()
    def _together(self, splits: Mapping[str, Prepared]) -> dict[str, Predictions]:
        """Predict all examples of adapters that share a pass, in batches of similar length."""
        evaluators = {name: self.predictors[name].evaluator for name in splits}
        results = {}
        for name, split in splits.items():
            count, own = len(split.features), evaluators[name]
            ranked = own.config.decoding[0] == "ranking"
            probabilities = torch.zeros(count, len(own.candidates)) if ranked else None
            results[name] = Predictions([""] * count, probabilities, None, None)
        rows = [(length, name, row) for name, split in splits.items() for row, length in enumerate(split.longest)]
        rows.sort(key=lambda item: item[0])
        size = min(evaluator.config.batch_size for evaluator in evaluators.values())
        for start in range(0, len(rows), size):
            self._batch([(name, row) for _, name, row in rows[start : start + size]], splits, results)
        return results

    def _batch(
        self, rows: Sequence[tuple[str, int]], splits: Mapping[str, Prepared], results: Mapping[str, Predictions]
    ) -> None:
        """Rank or generate the examples of one pass, each an adapter's name and a row of its split."""
        first = self.predictors[rows[0][0]]
        model: Any = first.model  # writes text: a classification head shares no pass
        features = [{"input_ids": splits[name].features[row]["input_ids"]} for name, row in rows]
        device = next(model.parameters()).device
        batch = {key: value.to(device) for key, value in first.evaluator.collate(features).items()}
        names = [self.predictors[name].model.name for name, _ in rows]
        encoded = model.encode(batch["input_ids"], batch["attention_mask"], names if len(set(names)) > 1 else None)
        if results[rows[0][0]].probabilities is None:
            for (name, row), text in zip(rows, first.evaluator.generate(model, encoded), strict=True):
                results[name].texts[row] = text
            return
        evaluators = [self.predictors[name].evaluator for name, _ in rows]
        columns = [own.columns(splits[name].examples[row]) for own, (name, row) in zip(evaluators, rows, strict=True)]
        candidates = [
            [own.candidates[column] for column in each] for own, each in zip(evaluators, columns, strict=True)
        ]
        likelihoods = model.likelihoods_of_rows(encoded, candidates).cpu()
        for (name, row), own, each, values in zip(rows, evaluators, columns, likelihoods, strict=True):
            scores, probabilities = values[: len(each)], results[name].probabilities
            assert probabilities is not None
            probabilities[row, each] = torch.softmax(scores, dim=-1)
            results[name].texts[row] = own.task.words[each[int(scores.argmax())]]


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
