"""Use a trained adapter: ``mmpt.load(RUN_DIR).predict(rows)``."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmpt.config.rules import RULES, apply_rules
from mmpt.config.schema import EvaluationConfig, ModelConfig, TaskConfig
from mmpt.config.typed_build import Problems, build
from mmpt.data.tasks import Task
from mmpt.errors import AdapterError, ConfigError, MmptError
from mmpt.methods import method_class
from mmpt.models.adapt import remove_adapter
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter_files import Adapter, read_adapter
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.located import located
from mmpt.models.saving import put_on
from mmpt.training.evaluate import Evaluator
from mmpt.training.settings import REGISTERED
from mmpt.utils.untrusted import one_line

_backbones: weakref.WeakValueDictionary[str, Backbone] = weakref.WeakValueDictionary()  # in use, by configuration
_loading = threading.Lock()
_numbers = itertools.count()


class Predictor:
    """A backbone with a saved adapter, and the task it was trained for."""

    def __init__(self, backbone: Backbone, model: AdaptedModel, evaluator: Evaluator) -> None:
        """Join them; :func:`load` is the usual way."""
        self.backbone = backbone
        self.model = model.eval()
        self.evaluator = evaluator

    def predict(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict rows with the task's fields.

        Args:
            rows: Mappings with the fields that the task's template names; a label isn't needed.

        Returns:
            One mapping a row: ``id``, ``source``, ``prediction``, ``probabilities`` by label word (ranking), and
            ``target`` and ``correct`` where the row has a label.

        Raises:
            DataError: A row lacks a field.
        """
        return self.predict_located((f"row {number}", dict(row)) for number, row in enumerate(rows, start=1))

    def predict_located(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """Predict pairs of where a row was read and the row, as ``mmpt.data.files.read_rows`` gives them."""
        examples = list(self.evaluator.task.examples(rows, require_label=False))
        if not examples:
            return []
        split = self.evaluator.prepare(examples)
        decoding = self.evaluator.config.decoding[0]
        with self.backbone.lock:
            return self.evaluator.rows(split, self.evaluator.predict(self.model, split, decoding))


def load(directory: str | Path, *, model: str | None = None, revision: str | None = None) -> Predictor:
    """Load a backbone plus adapter.

    Adapters of one backbone share its weights while any of them is in use, but for methods that change it (lora, ia3,
    full), and for models with a classification head: each of those has a copy. Several threads may predict; those on
    one backbone take turns.

    Args:
        directory: A finished run directory, or its ``adapter`` folder; or an adapter on the hub, as ``hub:owner/name``
            (``hub:owner/name@REVISION``), or ``owner/name`` where no such directory exists.
        model: Another place of the same backbone (a directory), where it has moved.
        revision: Commit, branch or tag of an adapter on the hub.

    Returns:
        A predictor that gives what the run's own evaluation gave.

    Raises:
        AdapterError: The adapter is missing or damaged, the hub doesn't give it, or the backbone's weights aren't those
            it was trained on.
        ModelError: The backbone can't be loaded.
    """
    path = located(directory, revision)
    adapter = read_adapter(path)
    stated_task, evaluation, length, seed = _parts(adapter, path)
    task = Task(stated_task)
    backbone, built = join(adapter, path, model=model, classes=task.outputs)
    try:
        evaluator = Evaluator(task, backbone.tokenizer, evaluation, length, seed, backbone.kind)
    except MmptError as error:
        raise AdapterError(f"{path}: adapter.json describes nothing that can be built ({one_line(error)})") from error
    return Predictor(backbone, built, evaluator)


def join(adapter: Adapter, path: Path, *, model: str | None = None, classes: int = 2) -> tuple[Backbone, AdaptedModel]:
    """An adapter on its backbone.

    Args:
        adapter: What :func:`mmpt.models.adapter_files.read_adapter` gave.
        path: How to call it in an error.
        model: Another place of the backbone.
        classes: Outputs of the backbone's head, where it has one.

    Raises:
        AdapterError: As of :func:`load`.
        ModelError: The backbone can't be loaded.
    """
    backbone = _backbone(adapter, path, model, classes)
    with _loading:
        name = f"loaded{next(_numbers)}"
        put_on(backbone.model, adapter, str(path), name, fingerprint=backbone.fingerprint)
        built = AdaptedModel.of(backbone.model, name, cross_attention=backbone.cross_attention).eval()
    if not (built.method.changes_backbone() or built.method.has_head):  # others may share the backbone
        weakref.finalize(built, _forget, backbone, name)
    return backbone, built


def _forget(backbone: Backbone, name: str) -> None:
    """Take an adapter that nobody uses any more off a backbone that others may share."""
    with backbone.lock:
        remove_adapter(backbone.model, name)


def _backbone(adapter: Adapter, path: Path, model: str | None, classes: int) -> Backbone:
    """The adapter's backbone: one that is in use already, where that can be shared, else loaded."""
    stated = dict(adapter.description["backbone"])
    fingerprint = stated.pop("fingerprint", None)
    if model is not None:
        stated |= {"source": "path", "path": model}
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
        if not alone and backbone.kind != "encoder":  # an adapter's classification head lies in the model
            _backbones[key] = backbone
    return backbone


def _parts(adapter: Adapter, path: Path) -> tuple[TaskConfig, EvaluationConfig, int, int]:
    content = adapter.description
    try:
        task, evaluation = content["task"], content["evaluation"]
        length, seed = content["max_length"], content["seed"]
        dict(content["backbone"])
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{path}: adapter.json lacks or spoils {error}; it isn't one that mmpt wrote") from error
    parts = {
        "task": _build(TaskConfig, task, "task", path),
        "evaluation": _build(EvaluationConfig, evaluation, "evaluation", path),
        "max_length": _build(int, length, "max_length", path),
        "seed": _build(int, seed, "seed", path),
    }
    problems = Problems()
    apply_rules(RULES + REGISTERED, parts, problems)  # such as no decoding at all
    if problems.found:
        raise AdapterError(f"{path}: adapter.json is damaged: {problems.found[0][1]}")
    return parts["task"], parts["evaluation"], parts["max_length"], parts["seed"]


def _build(kind: type, values: Any, key: str, path: Path) -> Any:
    problems = Problems()
    built = build(kind, values, key, problems)
    if problems.found:
        raise AdapterError(f"{path}: adapter.json is damaged: {problems.found[0][1]}")
    return built
