"""A matching of jbertrand89/temporal_matching; see tm_chamfer."""

from __future__ import annotations

from check import mapping

outputs = mapping("tm_chamfer")
