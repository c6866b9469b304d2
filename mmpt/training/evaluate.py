"""Evaluation: rank the task's label words (default), or generate text and compare it (the published way).

Letters: N examples, C label words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mmpt.attention.architectures import Kind
from mmpt.config.schema import EvaluationConfig
from mmpt.data.collate import IGNORED, CachingCollator, Collator
from mmpt.data.metrics import chance, interval, label_indices, majority, normalise, score
from mmpt.data.special_tokens import answers, inner_end
from mmpt.data.tasks import Example, Task
from mmpt.data.tokenized import TokenizedSplit as Prepared
from mmpt.errors import DataError
from mmpt.models.adapted import AdaptedModel, Encoded
from mmpt.models.engine import ENGINES
from mmpt.runs.names import ROUTE_ENTROPY, ROUTE_LOAD, ROUTE_MEAN, ROUTE_OF_TASK


@dataclass(frozen=True)
class Predictions:
    """A model's answers for a split."""

    texts: list[str]  # N label words or generated texts
    probabilities: Tensor | None  # (N, C), softmax over the label words' log-likelihoods; None for generation
    loss: float | None  # token-mean cross-entropy of the targets; None without targets
    route_probs: Tensor | None  # (N, R); None for methods without a router


class Evaluator:
    """Predicts and scores one task with one tokenizer. Batches are cut by length, in the same way every time."""

    def __init__(
        self,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        config: EvaluationConfig,
        max_length: int,
        seed: int,
        kind: Kind = "seq2seq",
    ) -> None:
        """Prepare the labels of a task, for backbones of a kind, which decides what sources and targets are.

        A source has at most ``max_length`` tokens; ``seed`` is that of the bootstrap. DataError: the labels, or their
        absence, are nothing for this kind of model.
        """
        self.task, self.tokenizer, self.config = task, tokenizer, config
        self.seed = seed
        self.reading = ENGINES[kind].READING(task, tokenizer, max_length)
        self.reading.check_generation(config)
        self.candidates = self.reading.candidates
        self.candidate_indices = {tuple(ids): index for index, ids in enumerate(self.candidates)}
        pad = tokenizer.pad_token_id
        self.collate = Collator(0 if pad is None else int(pad))

    def prepare(self, examples: Sequence[Example]) -> Prepared:
        """Tokenise a split."""
        return self.reading.encode(examples)

    def cut(self, split: Prepared) -> Iterator[list[int]]:
        """Rows of each batch that :meth:`predict` makes; the cache is computed in the same ones, so that bits agree."""
        return split.batches(self.config.batch_size)

    def batches(self, split: Prepared, device: torch.device) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Rows and tensors of each batch of :meth:`cut`."""
        for rows in self.cut(split):
            batch = CachingCollator(self.collate, split.activations)(split.at(rows))
            yield rows, {name: value.to(device) for name, value in batch.items()}

    def check_longest(self, model: AdaptedModel, *splits: Prepared) -> None:
        """Predict the longest example of all splits, so that one beyond the model's positions is refused at once.

        ConfigError: the model has fewer positions. DataError: a label word has a token at which generation stops.
        """
        for word, ids in zip(self.task.words, self.candidates, strict=False):
            if inner_end(model.backbone, ids):
                raise DataError(f'the label "{word}" has a token at which the model stops writing; choose another word')
        if model.injection.architecture.limited:
            longest = max((split.of_longest() for split in splits), key=lambda split: split.tokens[0])
            for decoding in self.config.decoding:
                self.predict(model, longest, decoding)

    @torch.no_grad()
    def predict(self, model: AdaptedModel, split: Prepared, decoding: str) -> Predictions:
        """Predict a split by ``ranking`` or ``generation``, in evaluation mode."""
        training, device = model.training, next(model.parameters()).device
        model.eval()
        count = len(split.features)
        texts = [""] * count
        probabilities = torch.zeros(count, len(self.candidates)) if decoding == "ranking" else None
        routes: list[Tensor] = [torch.empty(0)] * count
        total, tokens = 0.0, 0
        for rows, batch in self.batches(split, device):
            encoded = model.start(batch)
            losses = None  # of the targets, by example
            if probabilities is not None:
                likelihoods = self._rank(model, encoded, [split.examples[row] for row in rows]).cpu()
                probabilities[rows] = torch.softmax(likelihoods, dim=-1)
                answers = [self.task.words[index] for index in likelihoods.argmax(dim=-1).tolist()]
                losses = self._ranked_losses(split.at(rows), likelihoods)
            else:
                answers = self.generate(model, encoded)
            for row, text in zip(rows, answers, strict=True):
                texts[row] = text
            if "labels" in batch:
                total += (model.losses(encoded, batch["labels"]) if losses is None else losses).sum().item()
                tokens += int((batch["labels"] != IGNORED).sum())
            if encoded.contribution.route_probs is not None:
                for row, probs in zip(rows, encoded.contribution.route_probs.cpu(), strict=True):
                    routes[row] = probs
        model.train(training)
        model.injection.set({})
        routed = torch.stack(routes) if routes and routes[0].numel() else None
        return Predictions(texts, probabilities, total / tokens if tokens else None, routed)

    def columns(self, example: Example) -> list[int]:
        """Which of the candidates an example has: all, but in a mixture those of its own task."""
        if not self.task.parts:
            return list(range(len(self.candidates)))
        return [self.task.words.index(word) for word in self.task.of(example).words]

    def _rank(self, model: Any, encoded: Encoded, examples: Sequence[Example]) -> Tensor:
        """Log-likelihoods (B, C) of the candidates; of a mixture, -inf for words that are not of an example's task."""
        if not self.task.parts:
            likelihoods: Tensor = model.rank(encoded, self.candidates)
            return likelihoods
        own = [self.columns(example) for example in examples]
        most = max(map(len, own))
        own = [[*columns, *columns[-1:] * (most - len(columns))] for columns in own]
        ranked = model.likelihoods_of_rows(
            encoded, [[self.candidates[column] for column in columns] for columns in own]
        )
        likelihoods = ranked.new_full((len(own), len(self.candidates)), -torch.inf)
        return likelihoods.scatter(1, torch.tensor(own, device=ranked.device), ranked)

    def _ranked_losses(self, features: Sequence[Mapping[str, Any]], likelihoods: Tensor) -> Tensor | None:
        """Minus the likelihood of each target, (B,), from those of all candidates (B, C).

        None where a target is no candidate: there is none, or data.max_length cut it.
        """
        indices = [self.candidate_indices.get(tuple(feature.get("labels", ()))) for feature in features]
        if None in indices:
            return None
        return -likelihoods[torch.arange(len(features)), torch.tensor(indices)]

    def generate(self, model: AdaptedModel, encoded: Encoded) -> list[str]:
        """Texts of a batch behind the encoder, by greedy generation."""
        length, cache = self.config.max_new_tokens, self.config.key_cache
        options = {"max_new_tokens": length, "do_sample": False, "num_beams": 1, "cache_implementation": cache}
        ids = model.generate(encoded, **options)
        return answers(self.tokenizer, model.backbone, ids)

    def scores(self, split: Prepared, predictions: Predictions, decoding: str) -> dict[str, Any]:
        """Metrics with the primary one's bootstrap interval, as result.json has them."""
        bounds = interval(
            self.task,
            split.examples,
            predictions.texts,
            resamples=self.config.bootstrap,
            confidence=self.config.confidence,
            seed=self.seed,
        )
        values: dict[str, Any] = dict(score(self.task, split.examples, predictions.texts))
        return {**values, "interval": None if bounds is None else list(bounds), "decoding": decoding}

    def baselines(self, train: Prepared, test: Prepared) -> dict[str, dict[str, float] | None]:
        """Majority baseline on the test split, and the chance level."""
        constant = majority(self.task, train.examples, test.examples)
        level = chance(self.task)
        return {
            "majority": dict(score(self.task, test.examples, constant)),
            "chance": None if level is None else {self.task.primary: level},
        }

    def rows(self, split: Prepared, predictions: Predictions) -> list[dict[str, Any]]:
        """One plain mapping an example, as predictions.jsonl has them."""
        result = []
        for index, (example, text) in enumerate(zip(split.examples, predictions.texts, strict=True)):
            row: dict[str, Any] = {"id": example.id, "source": example.source, "prediction": text}
            if example.target is not None:
                row |= {"target": example.target, "correct": self._right(example, text)}
            if predictions.probabilities is not None:
                values = predictions.probabilities[index].tolist()
                row["probabilities"] = dict(zip(self.task.words, values, strict=True))
                if example.task is not None:
                    own = self.task.of(example).words
                    row["probabilities"] = {word: row["probabilities"][word] for word in own}
            result.append(row)
        return result

    def _right(self, example: Example, text: str) -> bool:
        if self.task.free_text:
            return normalise(text) == normalise(example.target or "")
        return bool(label_indices(self.task.of(example).words, [text])[0] == example.label)


def route_statistics(predictions: Predictions, examples: Sequence[Example]) -> dict[str, float]:
    """Share of examples whose likeliest route is r, mean probability of r (of a mixture by task too), mean entropy."""
    probs = predictions.route_probs
    if probs is None:
        return {}
    chosen = torch.bincount(probs.argmax(dim=-1), minlength=probs.shape[1]).float() / len(probs)
    mean = probs.mean(dim=0)
    entropy = -(probs * probs.clamp_min(1e-12).log()).sum(dim=-1).mean()
    values = {ROUTE_LOAD.format(route=route): float(share) for route, share in enumerate(chosen)}
    values |= {ROUTE_MEAN.format(route=route): float(share) for route, share in enumerate(mean)}
    for task in dict.fromkeys(example.task for example in examples if example.task is not None):
        of_task = probs[[example.task == task for example in examples]].mean(dim=0).tolist()
        values |= {ROUTE_OF_TASK.format(route=route, task=task): share for route, share in enumerate(of_task)}
    return {**values, ROUTE_ENTROPY: float(entropy)}
