"""An ablation of TEAM; see team."""

from __future__ import annotations

from check import mapping

outputs = mapping("team")
