"""Names in a task's YAML that YAML 1.1 does not read as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmpt.config.schema import TaskConfig
from mmpt.config.typed_build import Problems, build


@pytest.mark.parametrize("word", ["yes", "no", "on", "OFF", "01", "12:30", "0x10", "1e3", "1"])
def test_a_label_that_yaml_does_not_read_as_text_needs_quotes(tmp_path: Path, word: str) -> None:
    path = tmp_path / "task.yaml"
    problems = Problems()
    for quoted in (f'"{word}"', word):
        path.write_text(f"name: t\ntemplate: '{{x}}'\nlabels:\n  {quoted}: [a]\n  other: [b]\n")
        task = build(TaskConfig, OmegaConf.to_container(OmegaConf.load(path)), "task", problems)
        if quoted != word:
            assert not problems.found and list(task.labels) == [word, "other"]
    [(key, text)] = problems.found
    assert key == "task.labels" and "not as text; write words such as" in text
