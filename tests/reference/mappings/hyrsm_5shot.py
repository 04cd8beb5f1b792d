"""As hyrsm_1shot, which tells the forms apart by the case's stem."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("mapping_hyrsm", Path(__file__).with_name("hyrsm_1shot.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
outputs = _module.outputs
