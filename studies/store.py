"""The storing of runs under its first name, ``fsmm.studies.store``; it lives in ``fsmm.runs.store``.

Scripts that were written for the first edition import it from here.
"""

from __future__ import annotations

from ..runs.store import load_run, save_run

__all__ = ["load_run", "save_run"]
