"""torchvision beside a CPU torch has a wheel that is built for CUDA, whose native library cannot be loaded.

``import torchvision`` fails in that case while it registers meta kernels for operators that do not exist.
Declaring the two operators lets the rest of torchvision (all that open_clip and pytorchvideo use) import.
Call :func:`ensure_torchvision` before any import that needs torchvision, in every process, spawned workers
included.
"""

from __future__ import annotations

import importlib
import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[object] = []  # a torch.library.Library lives as long as its object


def ensure_torchvision() -> None:
    """Make ``import torchvision`` work in this process; do nothing if it already works.

    Raises ImportError if torchvision is not installed, and passes on any other error of its import.
    """
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        # The operators are declared only after the failure: a native library that loads would abort the process
        # on a second registration.
        if "torchvision::" not in str(error) or _declared:
            raise
    from torch.library import Library

    library = Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")
