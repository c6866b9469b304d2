"""Benchmarks against peers, in one process, interleaved."""
