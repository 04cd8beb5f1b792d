"""Networks that torch compiles before their first batch on a GPU, which ``--compile`` asks for.

A compiled network computes the same in fewer steps, so that its features differ by rounding, as between two devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import UsageError


def compiled(forward: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    """A function of one tensor, compiled for each shape when it is first called with it.

    name: the encoder's. The compiled function raises UsageError where it cannot be compiled.
    """
    import torch
    from torch._dynamo.exc import TorchDynamoException

    def plain(items: Any) -> Any:  # Torch compiles functions; some encoders give objects that are called.
        return forward(items)

    quick = torch.compile(plain, dynamic=False)

    def run(items: Any) -> Any:
        try:
            return quick(items)
        except TorchDynamoException as error:
            raise UsageError(
                f"The network of encoder {name!r} cannot be compiled ({_first_line(error)}); leave out --compile."
            ) from None

    return run


def try_out(device: str) -> None:
    """Compile a small function. Raises UsageError where torch lacks what it needs, such as a compiler."""
    import torch

    try:
        torch.compile(lambda x: x * 2 + 1)(torch.zeros(8, device=device))
    except Exception as error:  # What is missing shows in all ways: a compiler, Triton, headers, a driver.
        raise UsageError(
            f"torch cannot compile networks here ({_first_line(error)}); leave out --compile."
        ) from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:200] if lines else type(error).__name__).rstrip(".")
