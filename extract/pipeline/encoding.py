"""An encoder runs over prepared clips: one clip's trouble stays that clip's, a batch without room is halved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DecodeError, FsmmError, UsageError, error_named, install_hint
from ...machine.memory import is_want_of_memory
from ..contract import Encoder

