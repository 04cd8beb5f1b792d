"""What a piece of work costs, found by doing it once under a meter: memory, operations, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

# An iterated method calls the same operations again and again: the first ones tell what they cost.
_LOOKED_AT = 2000


@dataclass(frozen=True)
class Cost:
    """What one call of a piece of work costs.

    bytes: the most memory that the tensors it made held at once. operations: how many functions of torch it called.
    gradients: whether something was traced for a backward pass.
    """

    bytes: int
    operations: int
    gradients: bool


def cost_of(work: Callable[[], object]) -> Cost:
    """The cost of one call of ``work``."""
    with _Meter() as meter:
        work()
    return Cost(meter.peak, meter.operations, meter.gradients)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that the tensors made by one call of ``work`` held at once."""
    return cost_of(work).bytes


class _Meter(TorchFunctionMode):
    """Sees every call of a function of torch and adds up the memory of the results that are alive.

    What a function needs inside and gives back before it returns is not seen. (A mode below autograd would see it, and
    costs a second and 66 MB when it is first used, more than a whole evaluation of ProtoNet.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.peak = 0
        self.gradients = False
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [tensor for tensor in _tensors(out) if tensor.device.type != "meta"]
        if not made:
            return out
        self.operations += 1
        if self.operations > _LOOKED_AT:
            return out
        given = {storage.data_ptr() for storage in map(_storage, _tensors([args, kwargs])) if storage}
        filled = (kwargs or {}).get("out") is not None
        for tensor in made:
            storage = _storage(tensor)
            self.gradients |= tensor.grad_fn is not None or storage is None
            if storage is None:
                continue
            if (
                filled
            ):  # a buffer kept from an earlier call costs as much as it takes now, not as it could hold
                self._alive[storage.data_ptr()] = (StorageWeakRef(storage), tensor.nbytes)
            elif storage.data_ptr() not in given:  # a view takes no memory of its own
                self._alive[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {place: held for place, held in self._alive.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


def _storage(tensor: Tensor) -> UntypedStorage | None:
    """The memory of a tensor; None inside torch.func's gradients, where tensors have none of their own."""
    try:
        return tensor.untyped_storage()
    except NotImplementedError:
        return None


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors inside lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
