"""Buffers whose size is known only after a head was fitted to base classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def let_grow(module: nn.Module, *names: str) -> None:
    """Give these buffers of a module the sizes of stored ones before they are loaded, as far as there are any."""

    def take_sizes(held: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
        for name in names:
            if (stored := state_dict.get(prefix + name)) is not None:
                setattr(held, name, getattr(held, name).new_empty(stored.shape))

    module._register_load_state_dict_pre_hook(take_sizes, with_module=True)
