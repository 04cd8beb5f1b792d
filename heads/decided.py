"""What a choice was made on: the words for it, and how a head declares its own choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

On = Literal["base", "val", "base and val", "supports", "given", "none"]
"""base, val: clips of these classes; supports: each task's own; given: the user; none: fixed before any clip was read.

Novel classes are not among them: nothing may be chosen on what is tested."""


@dataclass(frozen=True)
class Decided:
    """What one choice of a method is made on."""

    on: On
    """What it is made on here."""
    published: str = ""
    """What its authors made it on, where that differs."""
