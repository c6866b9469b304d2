"""Several trials at once on one frozen backbone: in turns, but for their training passes, which are one.

Each trial keeps its own data order, optimizer, schedule, evaluation, checkpoints and run directory: it runs as it does
alone, up to its next training pass. Once every trial has come that far, their batches are stacked and go through the
frozen network together, forwards and backwards; the rows of one trial never meet those of another, so its loss and
gradients are its own up to rounding. What a trial believes to be global (random generators, accelerate's state) is
exchanged at every turn.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from greenlet import getcurrent, greenlet
from torch import Tensor
from torch.nn import functional as F

from mmpt.attention.architectures import ARCHITECTURES
from mmpt.config.schema import Config, ModelConfig
from mmpt.data.collate import IGNORED
from mmpt.models.adapted import AdaptedModel, Encoded
from mmpt.models.backbone import Backbone, load_backbone
from mmpt.models.stack import stack
from mmpt.training import signals as interruption


@dataclass(frozen=True)
class Pass:
    """A training pass that a trial asks for.

    Attributes:
        model: The trial's model.
        encoded: Its batch (B rows) behind the encoder, with what its method contributes.
        labels: (B, U), -100 for padding.
        divisor: What the summed loss is divided by.
        autocast: Makes the context the pass runs in (mixed precision).
        auxiliary: What the method adds to the loss, (), or None.
    """

    model: AdaptedModel
    encoded: Encoded
    labels: Tensor
    divisor: Tensor | float
    autocast: Callable[[], AbstractContextManager[Any]]
    auxiliary: Tensor | None = None


class Seat:
    """One trial's place in a pack."""

    def __init__(self, pack: Pack, label: str, work: Callable[[], Any]) -> None:
        """Seat a trial.

        Args:
            pack: The pack.
            label: Begins the lines that the trial prints.
            work: The whole trial; it runs in turns.
        """
        self.pack, self.label = pack, label
        self.result: Any = None
        self.error: BaseException | None = None
        self.asked: Pass | None = None
        self._answer: Tensor | BaseException | None = None
        self._work = work
        self._turn = greenlet(self._all)
        self._turn.mmpt_seat = self
        self._globals = _read_globals()
        self._used = 0.0
        self._since: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the trial is over."""
        return bool(self._turn.dead)

    def clock(self) -> float:
        """Seconds that the trial has used: its turns, and its share of the passes that it was part of."""
        return self._used + (0.0 if self._since is None else time.perf_counter() - self._since)

    def training_pass(self, asked: Pass) -> Tensor:
        """Wait for the others, then forward and backward together; gradients are there afterwards.

        Returns:
            The trial's loss, (), detached.

        Raises:
            Exception: What the pass raised.
        """
        self.asked = asked
        self.pack.hub.switch()
        answer, self._answer, self.asked = self._answer, None, None
        if isinstance(answer, BaseException):
            raise answer
        assert answer is not None
        return answer

    def answer(self, loss: Tensor | BaseException, seconds: float) -> None:
        """Hand over what a pass gave, and this trial's share of its time."""
        self._answer = loss
        self._used += seconds

    def go_on(self, stop: BaseException | None = None) -> None:
        """Give the trial its turn, or end it with ``stop``: until it asks for a pass, or is over."""
        with self.globals():
            self._since = time.perf_counter()
            try:
                if stop is None:
                    self._turn.switch()
                else:
                    self._turn.throw(stop)
            finally:
                self._used, self._since = self.clock(), None

    @contextlib.contextmanager
    def globals(self) -> Iterator[None]:
        """Within the block, what is global to the process is this trial's."""
        outside = _read_globals()
        _write_globals(self._globals)
        try:
            yield
        finally:
            self._globals = _read_globals()
            _write_globals(outside)

    def _all(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error


class Pack:
    """Trials that share one frozen backbone, and its passes."""

    def __init__(self, works: Mapping[str, Callable[[], Any]]) -> None:
        """Seat the trials.

        Args:
            works: One function a trial, by the label that begins its lines. Within it, :func:`seat` gives its seat.
        """
        self.hub = getcurrent()
        self.seats = [Seat(self, label, work) for label, work in works.items()]
        self._backbones: dict[str, Backbone] = {}

    def run(self) -> list[Seat]:
        """Run all trials to their ends.

        Returns:
            The seats, with ``result`` or ``error``; a trial's error ends no other trial.

        Raises:
            KeyboardInterrupt: After every trial has noted that it was interrupted.
        """
        stop: BaseException | None = None
        try:
            while live := [seat for seat in self.seats if not seat.ended]:
                for seat in live:
                    seat.go_on()
                    left = isinstance(seat.error, SystemExit) and interruption.asked()  # a job that was preempted
                    if left or isinstance(seat.error, KeyboardInterrupt):
                        stop = seat.error
                    if stop is not None and not (interruption.asked() and interruption.patient()):
                        raise stop  # else each trial comes to the end of its step, and sees the signal itself
                waiting = [seat for seat in live if seat.asked is not None]
                if waiting:
                    _pass(waiting)
        except BaseException:  # Ctrl-C, or a defect of the pack itself: every trial notes that it was interrupted
            for seat in self.seats:
                with contextlib.suppress(KeyboardInterrupt):  # a second one: the others are told all the same
                    if not seat.ended:
                        seat.go_on(stop=KeyboardInterrupt())
            raise
        if stop is not None:
            raise stop
        return self.seats

    def backbone(self, config: ModelConfig) -> Backbone:
        """The pack's backbone, loaded once."""
        key = repr(config)
        if key not in self._backbones:
            self._backbones[key] = load_backbone(config)
        return self._backbones[key]


def seat() -> Seat | None:
    """The seat of the trial that is running, or None outside a pack."""
    found: Seat | None = getattr(getcurrent(), "mmpt_seat", None)
    return found


def stacking_seat(config: Config) -> Seat | None:
    """The seat of the trial that is running, where its passes are stacked with those of others; else None."""
    place = seat()
    return place if place is not None and table(config) is not None else None


def table(config: Config) -> str | None:
    """What trials must have in common to be stacked, or None for one that runs by itself.

    By itself runs what changes the backbone or reaches the encoder (it isn't a constant then), drops out in the frozen
    network (its random numbers would be drawn for all at once), scales losses (float16), compiles the model,
    checkpoints gradients, or has ``method.gate`` or other gates that can't be stacked; and models with a classification
    head, or of unknown architecture.
    """
    options = dataclasses.asdict(config.method.options)
    sites = options.get("sites")
    trainer = config.trainer
    architecture = ARCHITECTURES.get(config.model.architecture)
    if architecture is None or architecture.kind == "encoder" or "token_gates" in config.method.options.GROUPS:
        return None
    if not sites or "encoder" in sites or config.model.dropout != "none" or trainer.get("fp16"):
        return None
    if options.get("gate") or trainer.get("torch_compile") or trainer.get("gradient_checkpointing"):
        return None
    positions = ["layout", "layers"]
    if options.get("layout") in ("paper", "peft"):  # one length: its prefixes have positions
        positions += ["num_virtual_tokens", "share_type", "num_route_tokens"]
    shared = [options.get(name) for name in positions]
    return f"{config.model} {shared} {[trainer.get(name) for name in ('bf16', 'tf32', 'full_determinism', 'use_cpu')]}"


def _pass(seats: Sequence[Seat]) -> None:
    """One forward and backward of all seats' batches, stacked."""
    began = time.perf_counter()
    asked = [seat.asked for seat in seats if seat.asked is not None]
    try:
        with seats[0].globals():  # a pass draws no random numbers; mixed precision asks accelerate's state
            answers: Sequence[Tensor | BaseException] = _losses(asked)
    except Exception as error:  # it belongs to all: each trial ends with it, and can go on in a smaller pack
        answers = [copy.copy(error).with_traceback(None) for _ in seats]
    share = (time.perf_counter() - began) / len(seats)
    for seat_, answer in zip(seats, answers, strict=True):
        seat_.answer(answer, share)


def _losses(asked: Sequence[Pass]) -> list[Tensor]:
    first = asked[0]
    longest = max(one.labels.shape[1] for one in asked)
    labels = torch.cat([F.pad(one.labels, (0, longest - one.labels.shape[1]), value=IGNORED) for one in asked])
    with first.autocast():
        stacked = stack([one.encoded for one in asked], first.model.injection.shapes)
        sums = first.model.losses(stacked, labels).split([len(one.labels) for one in asked])
    losses = [
        part.sum() / one.divisor + (0.0 if one.auxiliary is None else one.auxiliary)
        for part, one in zip(sums, asked, strict=True)
    ]
    torch.stack(losses).sum().backward()
    return [loss.detach() for loss in losses]


_SHARED = (PartialState, AcceleratorState, GradientState)  # accelerate's singletons


def _read_globals() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "accelerate": [dict(state._shared_state) for state in _SHARED],
    }


def _write_globals(values: dict[str, Any]) -> None:
    torch.set_rng_state(values["torch"])
    if values["cuda"] is not None:
        torch.cuda.set_rng_state_all(values["cuda"])
    np.random.set_state(values["numpy"])
    random.setstate(values["python"])
    for state, content in zip(_SHARED, values["accelerate"], strict=True):
        state._shared_state.clear()
        state._shared_state.update(content)
