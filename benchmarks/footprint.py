"""Computed against measured memory of a training step above the loaded model: ``python -m benchmarks.footprint``.

Computed as by ``mmpt models size``; measured by :mod:`benchmarks.memory`. ``exact`` is measured with an allocator that
returns what is freed (glibc's ``MALLOC_MMAP_THRESHOLD_``), ``default`` with the one that programs have.
"""

from __future__ import annotations

import os

from benchmarks import memory
from benchmarks.setting import BATCH, BEST, SHAPES, TOKENS, VOCABULARY, show, write
from mmpt.config.schema import ModelConfig
from mmpt.methods import parse
from mmpt.models.footprint import footprint

LABEL = 4
RETURNS = {"MALLOC_MMAP_THRESHOLD_": "16384"}


def computed(shape: str) -> dict[str, int]:
    """Bytes of a step in float32, by way."""
    values = {**SHAPES[shape], "vocab_size": VOCABULARY, "dropout_rate": 0.0}
    config = ModelConfig(shape, source="random", config=values)
    sizes = {"batch": BATCH, "source": TOKENS, "label": LABEL, "evaluation": BATCH}
    found = footprint(config, parse("multimask", {}), **sizes).activations["float32"]
    return {"ours, plain": found.step, BEST: found.cached or 0}


def main() -> None:
    """Measure every shape and way."""
    rows = []
    for shape in SHAPES:
        for way, size in computed(shape).items():
            row = {"shape": shape, "way": way, "computed MB": round(size / 1e6)}
            for name, variables in (("exact", RETURNS), ("default", {})):
                os.environ.update(variables)
                row[f"{name} MB"] = round(memory.peak(way, shape, str(TOKENS))[1] / 1e6)
                for variable in variables:
                    del os.environ[variable]
            rows.append(row)
    show(rows)
    write("footprint", "python -m benchmarks.footprint", rows)


if __name__ == "__main__":
    main()
