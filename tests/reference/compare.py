"""Largest differences between the product and every golden case: ``python -m tests.reference.compare``."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.reference.replay import read, replay


def differences(path: Path) -> dict[str, float]:
    """Largest absolute difference of outputs, and of gradients relative to their largest entry; ids as 0 or 1."""
    meta, golden = read(str(path))
    found = {"out.logits": 0.0, "out.loss": 0.0, "out.prefix": 0.0, "grad": 0.0, "out.generated": 0.0}
    for name, value in replay(meta, golden).items():
        want = golden[name][:, :2] if golden[name].dim() == 6 else golden[name]
        if name == "out.generated":
            found[name] = float(not torch.equal(value, want))
        elif name.startswith("grad."):
            scale = float(want.abs().max().clamp(min=1e-12))
            found["grad"] = max(found["grad"], float((value - want).abs().max()) / scale)
        elif name in found:
            found[name] = float((value - want).abs().max())
    return found


def main() -> None:
    """Print one line a case, as a Markdown table."""
    torch.set_num_threads(1)
    print("| case | logits | loss | prefix | gradients (relative) | generated ids |\n|---|---|---|---|---|---|")
    for path in sorted(Path(__file__).parent.glob("*.safetensors")):
        row = differences(path)
        numbers = " | ".join(f"{row[key]:.1e}" for key in ("out.logits", "out.loss", "out.prefix", "grad"))
        print(f"| {path.stem} | {numbers} | {'differ' if row['out.generated'] else 'equal'} |")


if __name__ == "__main__":
    main()
