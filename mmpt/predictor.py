"""Use a trained adapter: ``mmpt.load(RUN_DIR).predict(rows)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmpt.config.schema import EvaluationConfig, ModelConfig, TaskConfig
from mmpt.config.walk import Problems, build
from mmpt.data.tasks import Task
from mmpt.errors import AdapterError, MmptError
from mmpt.models.adapted import AdaptedModel
from mmpt.models.adapter import Adapter, load_state, read_adapter
from mmpt.models.backbone import load_backbone
from mmpt.training.evaluate import Evaluator
from mmpt.untrusted import one_line


class Predictor:
    """A backbone with a saved adapter, and the task it was trained for."""

    def __init__(self, model: AdaptedModel, evaluator: Evaluator) -> None:
        """Join the two; :func:`load` is the usual way."""
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
        return self.evaluator.rows(split, self.evaluator.predict(self.model, split, decoding))


def load(directory: str | Path, *, model: str | None = None) -> Predictor:
    """Load a backbone plus adapter.

    Args:
        directory: A finished run directory, or its ``adapter`` folder.
        model: Another place of the same backbone (a directory), where it has moved.

    Returns:
        A predictor that gives what the run's own evaluation gave.

    Raises:
        AdapterError: The adapter is missing or damaged, or the backbone's weights aren't those it was trained on.
        ModelError: The backbone can't be loaded.
    """
    path = Path(directory).expanduser()
    adapter = read_adapter(path)
    parts = _parts(adapter, path)
    stated = dict(adapter.description["backbone"])
    fingerprint = stated.pop("fingerprint", None)
    if model is not None:
        stated |= {"source": "path", "path": model}
    backbone = load_backbone(_build(ModelConfig, stated, "backbone", path))
    if backbone.fingerprint != fingerprint:
        raise AdapterError(
            f"{path} was trained on other backbone weights ({str(fingerprint)[:12]}) than {backbone.origin} has "
            f"({backbone.fingerprint[:12]}); give the original with --model DIR"
        )
    task, evaluation, length, seed = parts
    try:
        evaluator = Evaluator(Task(task), backbone.tokenizer, evaluation, length, seed)
        adapted = AdaptedModel.build(backbone, adapter.method, adapter.options, initialise=False)
    except (MmptError, RuntimeError, TypeError, ValueError, MemoryError, OverflowError) as error:
        raise AdapterError(f"{path}: adapter.json describes nothing that can be built ({one_line(error)})") from error
    load_state(adapted.method, adapter.state, str(path))
    return Predictor(adapted, evaluator)


def _parts(adapter: Adapter, path: Path) -> tuple[TaskConfig, EvaluationConfig, int, int]:
    content = adapter.description
    try:
        task, evaluation = content["task"], content["evaluation"]
        length, seed = int(content["max_length"]), int(content["seed"])
        dict(content["backbone"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AdapterError(f"{path}: adapter.json lacks or spoils {error}; it isn't one that mmpt wrote") from error
    built = _build(TaskConfig, task, "task", path), _build(EvaluationConfig, evaluation, "evaluation", path)
    return *built, length, seed


def _build(kind: type, values: Any, key: str, path: Path) -> Any:
    problems = Problems()
    built = build(kind, values, key, problems)
    if problems.found:
        raise AdapterError(f"{path}: adapter.json is damaged: {problems.found[0][1]}")
    return built
