"""Use a trained adapter: ``mmpt.load(RUN_DIR).predict(rows)``."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor

from mmpt.config.compose import CONF
from mmpt.config.rules import RULES, apply_rules
from mmpt.config.schema import EvaluationConfig, ModelConfig, TaskConfig
from mmpt.config.typed_build import Problems, build
from mmpt.data.collate import one_source_a_row
from mmpt.data.mixture import task_of
from mmpt.data.special_tokens import answers
from mmpt.data.tokenizer import refuse_other_tokenizer
from mmpt.errors import AdapterError, ConfigError, DataError, MmptError, nearest
from mmpt.methods import method_class
from mmpt.methods.base import mean_embedding
from mmpt.models.adapt import remove_adapter
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import Adapter, read_adapter
from mmpt.models.adapters import adapters_of
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.engine import engine_of
from mmpt.models.saving import located, put_on
from mmpt.training.evaluate import Evaluator, Prepared
from mmpt.training.settings import REGISTERED
from mmpt.utils.untrusted import one_line, read_text

Row = str | Mapping[str, Any]
T = TypeVar("T")
_backbones: weakref.WeakValueDictionary[str, Backbone] = weakref.WeakValueDictionary()  # in use, by configuration
_loading = threading.Lock()
_numbers = itertools.count()
_TYPES: dict[str, type] = {"task": TaskConfig, "evaluation": EvaluationConfig, "max_length": int, "seed": int}
_PARTS: dict[str, Any] = {"evaluation": {}, "max_length": 256, "seed": 0}  # of adapters that state no task


class Predictor:
    """A backbone with a saved adapter, and the task it was trained for."""

    def __init__(self, backbone: Backbone, model: AdaptedModel, evaluator: Evaluator) -> None:
        """Join them; :func:`load` is the usual way."""
        self.backbone = backbone
        self.model = model.eval()
        self.evaluator = evaluator

    def predict(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """Predict rows with the task's fields.

        Args:
            rows: Mappings with the fields that the task's template names (a label is not needed), or texts where it
                names one field.

        Returns:
            One mapping a row: ``id``, ``source``, ``prediction``, ``probabilities`` by label word (ranking), and
            ``target`` and ``correct`` where the row has a label.

        Raises:
            DataError: A row is of another type, or lacks a field.
        """
        return self.predict_located(self._located(rows))

    def predict_located(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """Predict pairs of where a row was read and the row, as ``mmpt.data.files.read_rows`` gives them."""
        return self._predict(rows, self.evaluator.config.decoding[0])

    def _predict(self, rows: Iterable[tuple[str, dict[str, Any]]], decoding: str) -> list[dict[str, Any]]:
        with self._prepared(rows) as split:
            if not split.examples:
                return []
            return self.evaluator.rows(split, self.evaluator.predict(self.model, split, decoding))

    def __call__(self, rows: Row | Iterable[Row]) -> dict[str, Any] | list[dict[str, Any]]:
        """Predict as a pipeline of transformers does: one row gives one answer, several give a list.

        Returns:
            ``label`` and ``score``, its probability; ``generated_text`` for tasks without label words.
        """
        if isinstance(rows, str | Mapping):
            return self([rows])[0]  # type: ignore[index]
        if self.evaluator.task.free_text:
            return [{"generated_text": text} for text in self.generate(rows)]
        predicted = self._predict(self._located(rows), "ranking")
        return [{"label": row["prediction"], "score": row["probabilities"][row["prediction"]]} for row in predicted]

    def scores(self, rows: Iterable[Row]) -> list[dict[str, float]]:
        """Probabilities by label word, for each row; arguments and errors are those of :meth:`predict`.

        Raises:
            DataError: The task has no label words.
        """
        if self.evaluator.task.free_text:
            raise DataError(f"task {self.evaluator.task.name} has free text, so no label words to score; use generate")
        return [row["probabilities"] for row in self._predict(self._located(rows), "ranking")]

    def generate(self, rows: Iterable[Row], **options: Any) -> list[str]:
        """Generate a text for each row.

        Args:
            rows: As of :meth:`predict`.
            options: As of transformers' ``generate``; by default those of the run.

        Raises:
            ConfigError: The model has a classification head, which writes no text.
        """
        if not options:
            return [row["prediction"] for row in self._predict(self._located(rows), "generation")]

        def texts(batch: dict[str, Tensor]) -> Iterable[str]:
            ids = self.model.generate(self.model.start(batch), **options)
            return answers(self.evaluator.tokenizer, self.model.backbone, ids)

        return self._of_batches(rows, texts)

    def embed(self, rows: Iterable[Row]) -> Tensor:
        """Mean of the last hidden states over each row's text, with the adapter's effect: (N, d), float32, on the CPU.

        The states are those of the encoder, or of the only stack; of a row with a text for each choice, the mean over
        choices. Arguments and errors are those of :meth:`predict`.
        """

        def means(batch: dict[str, Tensor]) -> Iterable[Tensor]:
            sources = one_source_a_row(batch)
            each = mean_embedding(self.model.states(sources), sources["attention_mask"]).cpu()
            return each.unflatten(0, (len(batch["input_ids"]), -1)).mean(dim=1)

        every = self._of_batches(rows, means)
        return torch.stack(every) if every else torch.empty(0, self.model.width)

    def routes(self, rows: Iterable[Row]) -> Tensor:
        """Each row's route probabilities (N, R), float32, on the CPU; arguments and errors as of :meth:`predict`.

        Raises:
            ConfigError: The method has no router.
        """

        def probabilities(batch: dict[str, Tensor]) -> Iterable[Tensor]:
            if (found := self.model.start(batch).contribution.route_probs) is None:
                raise ConfigError(f"method={self.model.method.options.name} of this adapter has no router")
            return found.cpu()

        every = self._of_batches(rows, probabilities)
        return torch.stack(every) if every else torch.empty(0, 0)

    def masks(self) -> dict[str, Tensor]:
        """The masks by site, each (R, S, L): of route, token and layer, in 0..1; empty for methods without masks."""
        return {site: values.detach().cpu() for site, values in self.model.method.mask_values().items()}

    def _of_batches(self, rows: Iterable[Row], answer: Callable[[dict[str, Tensor]], Iterable[T]]) -> list[T]:
        """What ``answer`` gives for the rows of each batch, in the order of all rows."""
        given: dict[int, T] = {}
        with self._prepared(self._located(rows)) as split, torch.no_grad():
            for indices, batch in self.evaluator.batches(split, self.backbone.model.device):
                given |= dict(zip(indices, answer(batch), strict=True))
        return [given[index] for index in range(len(given))]

    @contextmanager
    def _prepared(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Prepared]:
        """The rows as tokens; within the block no other thread uses the backbone or its tokenizer: they have states."""
        examples = list(self.evaluator.task.examples(rows, require_label=False))
        with self.backbone.lock:
            yield self.evaluator.prepare(examples)

    def _located(self, rows: Iterable[Row]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Rows as mappings, with where each is."""
        fields = self.evaluator.task.fields
        names = ", ".join(fields)
        if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
            raise DataError(f"a {type(rows).__name__} is not a list of rows; give a list of mappings with {names}")
        for number, row in enumerate(rows, start=1):
            if isinstance(row, str) and len(fields) == 1:
                yield f"row {number}", {fields[0]: row}
            elif isinstance(row, Mapping):
                yield f"row {number}", dict(row)
            else:
                text = "" if len(fields) > 1 else " or a text"
                raise DataError(f"row {number} is a {type(row).__name__}; give a mapping with {names}{text}")


def load(
    directory: str | Path,
    *,
    model: str | Path | None = None,
    revision: str | None = None,
    task: str | Path | Mapping[str, Any] | None = None,
    force: bool = False,
) -> Predictor:
    """Load a backbone plus adapter.

    Adapters of one backbone share its weights while any of them is in use, but for methods that change it (lora, ia3,
    full), and for models with a classification head: each of those has a copy. Several threads may predict; those on
    one backbone take turns.

    Args:
        directory: A finished run directory, or its ``adapter`` folder; or an adapter on the hub, as ``hub:owner/name``
            (``hub:owner/name@REVISION``), or ``owner/name`` where no such directory exists.
        model: The directory of the same backbone, where it has moved.
        revision: Commit, branch or tag of an adapter on the hub.
        task: What :func:`mmpt.save_adapter` does not know: a name of ``conf/task``, a YAML file, or a mapping.
        force: Accept another tokenizer than the adapter was trained with.

    Returns:
        A predictor that gives what the run's own evaluation gave.

    Raises:
        AdapterError: The adapter is missing or damaged, the hub does not give it, or it belongs to other weights than
            those of its backbone, or to another tokenizer.
        ModelError: The backbone cannot be loaded.
    """
    path = located(directory, revision)
    adapter = read_adapter(path)
    stated_task, evaluation, length, seed = _parts(adapter, path, task)
    built_task = task_of(stated_task)
    backbone, built = join(adapter, path, model=model, classes=built_task.outputs, force=force)
    try:
        with backbone.lock:  # labels are tokenised
            evaluator = Evaluator(built_task, backbone.tokenizer, evaluation, length, seed, backbone.kind)
    except MmptError as error:
        raise AdapterError(f"{path}: adapter.json describes nothing that can be built ({one_line(error)})") from error
    return Predictor(backbone, built, evaluator)


def join(
    adapter: Adapter, path: Path, *, model: str | Path | None = None, classes: int = 2, force: bool = False
) -> tuple[Backbone, AdaptedModel]:
    """Put an adapter that was read from ``path`` on its backbone; arguments and errors are those of :func:`load`.

    ``classes`` are outputs of the backbone's head, where it has one.
    """
    backbone = _backbone(adapter, path, model, classes)
    if not force:
        refuse_other_tokenizer(adapter.description, backbone.tokenizer, path, backbone.origin)
    with _loading, backbone.lock:
        name = f"loaded{next(_numbers)}"
        put_on(backbone.model, adapter, str(path), name, fingerprint=backbone.fingerprint)
        built = engine_of(backbone.model, name, cross_attention=backbone.cross_attention).eval()
        if not (built.method.changes_backbone() or built.method.has_head):  # others may share the backbone
            # Passes choose their method: that an adapter is freed, at any time, changes no pass of another one.
            adapters_of(backbone.model).activate(None)
            weakref.finalize(built, _forget, backbone, name)
    return backbone, built


def _forget(backbone: Backbone, name: str) -> None:
    """Take an adapter that nobody uses any more off a backbone that others may share."""
    with backbone.lock:
        remove_adapter(backbone.model, name)


def _backbone(adapter: Adapter, path: Path, model: str | Path | None, classes: int) -> Backbone:
    """The adapter's backbone: one that is in use already, where that can be shared, else loaded."""
    stated = dict(adapter.description["backbone"])
    fingerprint = stated.pop("fingerprint", None)
    if model is not None:
        stated |= {"source": "path", "path": str(model)}
    elif stated.get("source") in ("path", "hub") and not stated.get("path"):
        raise AdapterError(f"{path}: adapter.json does not say where the backbone is; give model=DIR")
    config = _build(ModelConfig, stated, "backbone", path)
    try:
        alone = method_class(adapter.method).changes_backbone()
    except ConfigError as error:
        raise AdapterError(f"{path}: {error}; update mmpt") from error
    key = repr(config)
    with _loading:
        backbone = None if alone else _backbones.get(key)
        if backbone is None or not backbone.has(fingerprint):
            backbone = load_backbone(config, classes=classes)
        if not backbone.has(fingerprint):
            raise AdapterError(
                f"{path} was trained on other backbone weights ({str(fingerprint)[:12]}) than {backbone.origin} has "
                f"({backbone.fingerprint[:12]}); give the original with --model DIR"
            )
        if not alone and not backbone.architecture.has_head:  # an adapter's classification head lies in the model
            _backbones[key] = backbone
    return backbone


def _parts(
    adapter: Adapter, path: Path, task: str | Path | Mapping[str, Any] | None = None
) -> tuple[TaskConfig, EvaluationConfig, int, int]:
    """Task, evaluation, most tokens of a source and seed; the library's adapters state none."""
    content = dict(adapter.description)
    try:
        dict(content["backbone"])
        if "task" in content:  # of a run, which states everything
            content = {name: content[name] for name in ("task", *_PARTS)}
        elif task is None:
            raise AdapterError(f"{path}: adapter.json names no task; give task=, a task's name, file or mapping")
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{path}: adapter.json is damaged ({error}); use an adapter that mmpt wrote") from error
    stated = content["task"] if task is None else _task(task)
    values = {**_PARTS, **content, "task": stated}
    parts = {name: _build(type_, values[name], name, path) for name, type_ in _TYPES.items()}
    problems = Problems()
    apply_rules(RULES + REGISTERED, parts, problems)  # such as no decoding at all
    if problems.found:
        raise AdapterError(f"{path}: adapter.json is damaged: {problems.found[0][1]}")
    return parts["task"], parts["evaluation"], parts["max_length"], parts["seed"]


def _task(task: str | Path | Mapping[str, Any]) -> Any:
    """A task as plain data."""
    if isinstance(task, Mapping):
        return dict(task)
    file = CONF / "task" / f"{task}.yaml" if Path(task).suffix == "" else Path(task).expanduser()
    if not file.is_file():
        names = sorted(file.stem for file in (CONF / "task").glob("*.yaml"))
        raise AdapterError(f"task={task}: there is no file {file}{nearest(str(task), names)}")
    return yaml.safe_load(read_text(file))


def _build(kind: type, values: Any, key: str, path: Path) -> Any:
    problems = Problems()
    built = build(kind, values, key, problems)
    if problems.found:
        raise AdapterError(f"{path}: adapter.json is damaged: {problems.found[0][1]}")
    return built
