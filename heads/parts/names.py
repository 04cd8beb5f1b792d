"""Names of modalities as names of the modules that belong to them."""

from __future__ import annotations

from torch import nn


def module_name(modality: str) -> str:
    """The name of a modality's module or parameter, which holds no dot and is not that of a method.

    >>> module_name("view1"), module_name("sensor/imu-1.5"), module_name("values")
    ('view1', 'sensor__imu-1_dot_5', 'of_values')
    """
    name = modality.replace("/", "__").replace(".", "_dot_")
    return f"of_{name}" if hasattr(nn.ModuleDict, name) or name == "training" else name
