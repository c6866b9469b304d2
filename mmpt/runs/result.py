"""The typed result of a run: the content of ``result.json``, whose JSON schema is docs/result.schema.json.

A field is None where its value was not measured, or where a file of another origin does not say it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmpt.runs.typed_json import fields, from_json, to_json
from mmpt.utils.files import dumps

FORMAT = 1  # of a run directory and of a result; raise it when a reader of today would misread one
Numbers = Mapping[str, float]
_BESIDE = {"beside": True}


def _null(about: str = "") -> Any:
    """A field that may be null in a complete result."""
    return field(default=None, metadata={"null": True, **({"about": about} if about else {})})


def _about(text: str) -> Any:
    return field(default=None, metadata={"about": text})


def _apart(default: Any) -> Any:
    return field(default=default, metadata={"apart": True})


@dataclass(frozen=True, slots=True)
class Data:
    """Where the examples came from, and how many there were."""

    name: Literal["bundled", "local", "hub"] | None = None
    bundled: bool | None = _about("synthetic data that come with mmpt")
    origin: str | None = None
    train: int | None = _about("examples")
    validation: int | None = None
    test: int | None = None
    truncated: int | None = _about("examples cut at data.max_length, all splits")


@dataclass(frozen=True, slots=True)
class Score:
    """The metrics of one split."""

    decoding: Literal["ranking", "generation"] | None = None
    interval: tuple[float, float] | None = _null("bootstrap interval of the primary metric")
    metrics: Numbers = field(default_factory=dict, metadata=_BESIDE)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores by split, such as ``test`` or ``test_generation``, and two baselines on the test split."""

    majority: Numbers | None = field(default=None, metadata={"about": "the most frequent training label, on test"})
    chance: Numbers | None = field(default=None, metadata={"null": True})
    splits: Mapping[str, Score] = field(default_factory=dict, metadata=_BESIDE)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Sizes of what was trained."""

    trainable: int | None = None
    total: int | None = _about("backbone and method")
    bytes: int | None = _about("of the saved adapter")
    groups: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the run took."""

    step_ms_median: float | None = _null()
    train_s: float | None = _null()
    total_s: float | None = _null()
    examples_per_s: float | None = _null()


@dataclass(frozen=True, slots=True)
class Memory:
    """What the run needed."""

    peak_bytes: int | None = _null()


@dataclass(frozen=True, slots=True)
class Result:
    """What one finished run measured, with its provenance.

    Attributes:
        config: The resolved configuration. A run directory has it in ``config.yaml``.
        absent: Names of the other fields that the file does not have.
    """

    status: Literal["done"] | None = "done"
    task: str | None = None
    method: str | None = None
    model: str | None = None
    data: Data = field(default_factory=Data)
    seed: int | None = None
    metric: str | None = _about("the primary metric: the key of scores.* that counts")
    metric_range: tuple[float, float] | None = _null("the least and the greatest value of that metric")
    scores: Scores = field(default_factory=Scores)
    parameters: Parameters = field(default_factory=Parameters)
    timing: Timing = field(default_factory=Timing)
    memory: Memory = field(default_factory=Memory)
    steps: int | None = None
    epochs: float | None = None
    best_step: int | None = _null()
    data_fingerprint: str | None = None
    backbone_fingerprint: str | None = None
    own_code: str | None = _null("hash of the user's own method, metric and loss files, where there are any")
    processes: int | None = _null("of torchrun; each has a batch of trainer.per_device_train_batch_size")
    warnings: tuple[str, ...] | None = None
    config_fingerprint: str | None = None
    versions: Mapping[str, str] | None = None
    config: Mapping[str, Any] | None = _apart(None)
    absent: tuple[str, ...] = _apart(())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Result:
        """Read JSON of any origin: what does not fit its field becomes None, and unknown keys are ignored."""
        result: Result = from_json(cls, content, [])
        config = content.get("config")
        return dataclasses.replace(
            result,
            config=config if isinstance(config, Mapping) else None,
            absent=tuple(name for name in fields(cls) if name not in content),
        )

    def to_dict(self, *, config: bool = False) -> dict[str, Any]:
        """Write plain values, of fields that the file read from had; ``config`` adds the configuration."""
        content = {"format": FORMAT, **to_json(self)}
        content = {name: value for name, value in content.items() if name not in self.absent}
        return content | ({"config": self.config} if config and self.config is not None else {})

    def problems(self) -> list[str]:
        """What is missing or wrong for a complete result, each with its key; empty for a complete one."""
        problems: list[str] = []
        from_json(Result, json.loads(dumps(self.to_dict())), problems)
        missing = [f"scores.{split} is missing" for split in ("validation", "test") if split not in self.scores.splits]
        return problems + missing

    def score(self, split: str = "test") -> float | None:
        """The primary metric on a split; None where it is not known."""
        score = self.scores.splits.get(split)
        return None if score is None or self.metric is None else score.metrics.get(self.metric)

    def baseline(self, name: Literal["majority", "chance"]) -> float | None:
        """The primary metric of a baseline; None where it is not known."""
        values: Numbers | None = getattr(self.scores, name)
        return None if values is None or self.metric is None else values.get(self.metric)
