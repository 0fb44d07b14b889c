"""What a CUDA graph does, on a CPU: operators are done again on the very tensors that they read and wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that wait for a device, or bring it something from the host: a CUDA graph cannot hold them.
WAIT = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "lift_fresh"}


class Tape(TorchDispatchMode):
    """Writes down every operator inside; nothing of what they did is left, as if they had only been recorded."""

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._before: list[tuple[torch.UntypedStorage, torch.UntypedStorage]] = []
        self._met: dict[int, torch.UntypedStorage] = {}  # kept, so that no address is given out twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in WAIT:
            raise RuntimeError(f"{func} waits for the device")
        for tensor in _tensors((args, kwargs)):
            if self._is_new(tensor):  # from outside: weights, buffers, the optimiser's state
                self._before.append((tensor.untyped_storage(), tensor.untyped_storage().clone()))
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._is_new(tensor)
        self._done.append((func, args, kwargs, result))
        return result

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        for storage, before in self._before:
            storage.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self._done:
            for kept, new in zip(_tensors(result), _tensors(func(*args, **kwargs)), strict=True):
                if kept.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    kept.copy_(new)

    def _is_new(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        new = storage.data_ptr() not in self._met
        self._met[storage.data_ptr()] = storage
        return new


class Recorder:
    """In place of `step.record`; counts."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, work: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
        self.recordings += 1
        with torch.random.fork_rng(devices=[]), Tape() as tape:
            result = work()

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay, result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
