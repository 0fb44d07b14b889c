"""One step of training: operator by operator, or recorded once as a CUDA graph and replayed.

A small network's step is some thousand short kernels, and on a GPU the time goes into starting them one by one from
Python. A recorded step is started as a whole. `settle` finds out whether that pays for a search's trials.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from scalenet.architecture import Objective

WARM = 3  # steps before a recording: libraries choose their algorithms, the optimiser allocates its state

Recorder = Callable[[Callable[[], Tensor], torch.device], tuple[Callable[[], None], Tensor]]


@dataclass(frozen=True)
class Step:
    """Loss, gradients, clipping and the optimiser's step. The host does not wait for the device."""

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    clip_norm: float  # largest 2-norm of all gradients together; 0: any
    bf16: bool

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """What is clipped, looked up once."""
        return list(self.model.parameters())

    def __call__(self, views: Sequence[Tensor], targets: Tensor, lr: float | Tensor) -> Tensor:
        """The loss of the batch before the step, a scalar. `lr` is the step's rate; on the device if a tensor."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(targets.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.objective.loss(self.model, tuple(views), targets)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return loss.detach()  # whoever keeps it must not keep the autograd graph, whose streams a recording would meet


def record(work: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    """`work` as a CUDA graph: what replays it, and the tensor that each replay writes its result to.

    Recording does none of the work. Whatever `work` decides in Python is decided once and for all; random numbers that
    it draws on the device are new at every replay, from torch's generator as it is by then.
    """
    with torch.cuda.device(device):
        graph, stream, collecting = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), gc.isenabled()
        gc.disable()  # another graph's end would spoil the recording (pytorch issue 161037)
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.Stream()):  # type: ignore[no-untyped-call]
                result = work()
        finally:
            torch.cuda.set_stream(stream)  # where a recording fails, torch leaves its own
            if collecting:
                gc.enable()
    return graph.replay, result


@contextmanager
def never_waiting(device: torch.device) -> Iterator[None]:
    """Inside, whatever makes the host wait for a CUDA device raises a RuntimeError; elsewhere nothing is watched."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@dataclass
class _Batches:
    """What is known of the batches of one shape."""

    taken: int = 0  # steps before the recording
    given: tuple[Tensor, ...] = ()  # what a replay reads
    replay: Callable[[], None] | None = None
    loss: Tensor | None = None  # what it writes


class Replayed:
    """A step that is recorded once it has been taken WARM times with batches of a shape, and replayed from then on.

    The rate is a tensor on the device, in float32 as optimisers take it there: the last bit of a step may differ from
    the step's own. The last step before a recording must not make the host wait, as a model does that looks at a value
    of its own: it could not be recorded, and a recording that fails leaves torch in disorder.

    Raises what recording raises.
    """

    def __init__(self, step: Step, device: torch.device, recorder: Recorder = record) -> None:
        self._step, self._device, self._recorder = step, device, recorder
        self._rate = torch.zeros((), device=device)
        self._batches: dict[tuple[torch.Size, ...], _Batches] = {}  # an epoch's last one may be smaller
        for group in step.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
        step.optimizer._warned_capturable_if_run_uncaptured = True  # as the first steps are, on purpose

    def __call__(self, views: Sequence[Tensor], targets: Tensor, lr: float) -> Tensor:
        """As `Step`'s; the result is overwritten by the next step."""
        new = (*views, targets)
        self._rate.fill_(lr)
        batches = self._batches.setdefault(tuple(tensor.shape for tensor in new), _Batches())
        if batches.taken < WARM:
            batches.taken += 1
            with never_waiting(self._device) if batches.taken == WARM else nullcontext():
                return self._step(views, targets, self._rate)
        if batches.replay is None or batches.loss is None:
            *own_views, own_targets = batches.given = tuple(tensor.clone() for tensor in new)
            batches.replay, batches.loss = self._recorder(
                lambda: self._step(own_views, own_targets, self._rate), self._device
            )
        for own, tensor in zip(batches.given, new, strict=True):
            own.copy_(tensor)
        batches.replay()
        return batches.loss
