"""Benchmarks against peers, in one process, interleaved."""

import mmpt  # noqa: F401  # before torch: it says how threads wait, peft's and ours alike
