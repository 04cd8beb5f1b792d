"""What a study's folder keeps of the study file and of the files that it includes, as they were when it was swept."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..._version import NUMERIC_VERSION, __version__
from .expand import value_as_text
from .included import Part


def about_study(
    parts: Sequence[Part], cache: Path, dataset: str | None, *, overrides: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """The content of study.json but for its times.

    parts: the study's own part first. overrides: the options of --set, as they were given.
    """
    own = parts[0].document
    return {
        "name": own.file.name,
        "title": own.file.title or own.file.name,
        "description": own.file.description,
        "blocks": [block for part in parts for block in _blocks(part)],
        "fixed": own.raw.get("fixed", {}),
        "set": {key: str(value) for key, value in overrides.items()},
        "published": _published(parts[0]),
        **({"studies": [_included(part) for part in parts[1:]]} if parts[1:] else {}),
        "command": command,
        "cache": str(cache.absolute()),
        "dataset": dataset,
        "versions": {
            "fsmm": __version__,
            "numeric": NUMERIC_VERSION,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _blocks(part: Part) -> list[dict[str, Any]]:
    """The blocks of a part as they are written, by the names that they have in the study."""
    found = [dict(block) for block in part.document.raw.get("blocks", ())]
    if part.name:
        for block in found:
            block["title"] = f"{part.name}: {block.get('title') or block['name']}"
            block["name"] = part.block(block["name"])
    return found


def _included(part: Part) -> dict[str, Any]:
    """What an included study says of its blocks."""
    file = part.document.file
    return {
        "file": part.document.where,
        "name": part.name,
        "fixed": part.document.raw.get("fixed", {}),
        "set": {key: value_as_text(key, value) for key, value in part.overrides.items()},
        "free_rows": file.free_rows,
        "published": _published(part),
        "blocks": [part.block(block.name) for block in file.blocks],
    }


def _published(part: Part) -> dict[str, Any] | None:
    published = part.document.file.published
    return None if published is None else published.model_dump()
