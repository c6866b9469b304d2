"""One run from its configuration to its result: opened, carried out, and recorded as done, failed or interrupted."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from mmpt.config.rules import LOSSES
from mmpt.config.schema import Config
from mmpt.data.metrics import try_own
from mmpt.models.backbone_cache import acquire, release
from mmpt.models.devices import dispatched, spread_of
from mmpt.runs.console import Console
from mmpt.runs.loggers import Loggers, make_logger
from mmpt.runs.names import summary
from mmpt.runs.record import RunRecord, read_result, read_status
from mmpt.runs.result import Result
from mmpt.training import distributed, signals
from mmpt.training.checkpoint import last_checkpoint, step_of
from mmpt.training.evaluate import Evaluator
from mmpt.training.experiment import Experiment
from mmpt.training.identity import Identity, identify
from mmpt.training.losses import load_loss
from mmpt.training.memory import reset_peak_memory


@signals.handle_signals()
def run_experiment(
    config: Config,
    resolved: dict[str, Any],
    identity: Identity | None = None,
    on_score: Callable[[int, float], None] | None = None,
) -> Result:
    """Train, evaluate, log and save; a finished run is shown again, an interrupted one resumes.

    Args:
        config: The checked configuration.
        resolved: The same as plain values, written to the run directory and to the logger.
        identity: From :func:`mmpt.training.identity.identify`, where the caller has it already.
        on_score: Called with step and validation score at each evaluation; what it raises ends the run.

    Returns:
        The result, as it is written to result.json.

    Raises:
        MmptError: Anything the user can act on; the run's status is then ``failed``, with the reason.
        Stopped: A signal has come; the run's status is then ``interrupted``.
    """
    signals.check()
    began = time.perf_counter()
    transformers_logging.set_verbosity_error()
    distributed.join()
    reset_peak_memory()
    if config.trainer.loss not in LOSSES:
        load_loss(config.trainer.loss)  # before anything heavy happens
    identity = identity or identify(config)
    first = distributed.rank() == 0
    console = Console(identity.directory.expanduser().absolute(), None if first else io.StringIO())
    console.note(f"data: {identity.splits.origin}")
    place = (identity.directory, identity.fingerprint)
    status = distributed.broadcast(lambda: read_status(*place)) or {}
    if status.get("status") == "done" and not config.run.overwrite:
        return _shown_again(identity.directory, console)
    generates, splits = "generation" in config.evaluation.decoding, identity.splits
    scored, resamples = (splits.validation, splits.test), config.evaluation.bootstrap
    try_own(identity.task, scored, generates=generates, resamples=resamples)
    # device and backbone come before the run directory, which stays untouched where one of them fails
    accelerator = distributed.prepare_device(config.trainer)
    backbone = acquire(config.model, getattr(config.method.options, "sites", "auto"), identity.task.outputs)
    if dispatched(backbone.model):
        console.note(f"network: {spread_of(backbone.model)}")
    evaluator = Evaluator(
        identity.task, backbone.tokenizer, config.evaluation, config.data.max_length, config.seed, backbone.kind
    )
    record = distributed.open_record(lambda: RunRecord.open(*place, resolved, config.run.overwrite))
    if record.state == "done":  # by another process, while the backbone was loaded
        record.close()
        return _shown_again(identity.directory, console)
    logger = make_logger(config.logger, console.note) if first else Loggers([], console.note)
    experiment = Experiment(config, identity, backbone, evaluator, record, logger, console)
    try:
        result = record.finish(experiment.carry_out(resolved, accelerator, began, on_score))
    except (KeyboardInterrupt, SystemExit):
        _interrupt(record, logger, console)
        raise
    except BaseException as error:
        record.fail(error)
        logger.finish("failed")
        raise
    release(config.model, backbone)
    logger.summary(summary(result))
    logger.finish("done")
    console.final_table(result)
    return result


def _shown_again(directory: Path, console: Console) -> Result:
    """Show the result of a finished run; no lock is needed."""
    console.note("this run is done; its result is shown again (run.overwrite=true repeats it)")
    result = read_result(directory)
    console.final_table(result)
    return result


def _interrupt(record: RunRecord, logger: Loggers, console: Console) -> None:
    """Note that a signal ended the run, and say where the same command resumes."""
    with signals.shutdown():
        checkpoint = last_checkpoint(record.checkpoints_dir) if distributed.rank() == 0 else None
        record.interrupt()
        where = "before the first checkpoint" if checkpoint is None else f"at step {step_of(checkpoint)}"
        how = f"Run the same command again to resume. Run directory: {record.directory}"
        console.note(f"Stopped {where}. {how}")
        logger.finish("interrupted")
