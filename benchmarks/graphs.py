"""CUDA graphs of a training step: forward and backward are captured once for each shape of the inputs, then replayed.

A step on cached states launches some thousand small kernels, and to launch one takes longer than to run it. A replay
launches all of them at once. Captures share one pool of memory, so they need as much as the largest. The optimizer
stays outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

WARM = 3  # passes before a capture: what libraries choose and allocate at first must not be part of it
Inputs = Mapping[str, Tensor]
Run = Callable[[], Tensor]


class Graphs:
    """The loss of an adapted model with its gradients, by replays.

    Attributes:
        captured: By shapes and types of the inputs: tensors that a replay reads, and the replay.
        reserved: Bytes that the captures hold; 0 without a GPU.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take a model; :meth:`__call__` captures it when a shape of inputs comes for the first time."""
        self.model = model
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.captured: dict[tuple[object, ...], tuple[Inputs, Run]] = {}
        self.reserved = 0
        self.gpu = self.trained[0].is_cuda
        self.pool = torch.cuda.graph_pool_handle() if self.gpu else None

    def __call__(self, inputs: Inputs) -> Tensor:
        """The loss () of inputs; gradients are in the parameters afterwards, and no older ones are added to them.

        Without a GPU the same is computed directly.
        """
        key = tuple((name, value.shape, value.dtype) for name, value in inputs.items())
        if key not in self.captured:
            self.captured[key] = self._capture(inputs)
        static, run = self.captured[key]
        for name, value in inputs.items():
            static[name].copy_(value)
        return run()

    def _capture(self, inputs: Inputs) -> tuple[Inputs, Run]:
        static = {name: value.clone() for name, value in inputs.items()}

        def compute() -> Tensor:
            for parameter in self.trained:
                parameter.grad = None
            loss: Tensor = self.model(**static).loss
            loss.backward()
            return loss.detach()

        if not self.gpu:
            return static, compute
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM):
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before, graph = torch.cuda.memory_reserved(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss = compute()
        self.reserved += torch.cuda.memory_reserved() - before
        gradients = [parameter.grad for parameter in self.trained]

        def replay() -> Tensor:
            graph.replay()
            for parameter, gradient in zip(self.trained, gradients, strict=True):
                parameter.grad = gradient
            return loss

        return static, replay
