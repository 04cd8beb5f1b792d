"""As em_dirichlet_fewshot, which tells the forms apart by the case's stem and inputs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "mapping_em_dirichlet", Path(__file__).with_name("em_dirichlet_fewshot.py")
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
outputs = _module.outputs
