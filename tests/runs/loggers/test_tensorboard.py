from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmpt.config.schema import LoggerConfig
from tests.runs.loggers.example import end, start, steps

pytest.importorskip("tensorboard", reason="the extra 'tensorboard' isn't installed")
TENSORBOARD = LoggerConfig(tensorboard=True)


def read(directory: Path) -> Any:
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory / "tensorboard"), size_guidance={"images": 0}).Reload()


def test_everything_is_read_back(tmp_path: Path) -> None:
    said: list[str] = []
    loggers = start(tmp_path, TENSORBOARD, said)
    steps(loggers, 1, 2, 3)
    end(loggers, tmp_path)
    found = read(tmp_path)
    assert said == []
    assert [(point.step, point.value) for point in found.Scalars("train/loss")][:2] == [(1, 1.0), (2, 0.5)]
    assert found.Scalars("test/score")[0].value == 0.5
    assert [image.step for image in found.Images("masks/decoder")] == [1, 2, 3]
    texts = {tag: found.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0] for tag in ("config", "status")}
    assert b"| task.name | rte |" in texts["config"] and texts["status"] == b"done"
    table = found.Tensors("predictions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert table.splitlines()[2] == r"| a \| b, c | entailment |"
    assert found.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    steps(start(tmp_path, TENSORBOARD, []), 1, 2, 3, 4)  # and then the process was killed
    loggers = start(tmp_path, TENSORBOARD, [], resume_step=2)
    steps(loggers, 3, 4, 5)
    loggers.finish("done")
    found = read(tmp_path)
    assert [point.step for point in found.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert [image.step for image in found.Images("masks/decoder")] == [1, 2, 3, 4, 5]
