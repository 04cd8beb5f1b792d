"""The form of a study's files, by which one that was edited by hand, or made by another program, is told from ours."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from ...machine.forms import Stored
from .spec import Published


class StoredRow(Stored):
    """An entry of rows.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """The name of the run's folder, which cannot lead out of the study's."""
    block: str
    """The block of the study file."""
    label: str
    """The text by which a person tells the run from others."""
    varies: dict[str, Any]
    """The values that differ within the block."""
    config: dict[str, Any]
    """The options of the run."""
    head: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """The name of the trained head's folder."""
    trained_as: dict[str, Any] = Field(default_factory=dict)
    """The options under which the head was trained."""


class _StoredBlock(Stored):
    """An entry of ``blocks`` of study.json, as the study file has it."""

    name: str
    """The name of the block."""
    title: str | int | float | None = None
    """The sentence above its table."""
    chart: str | None = None
    """How the block is drawn."""


class _StoredPart(Stored):
    """An entry of ``studies`` of study.json: what the file of an included study says of its blocks."""

    file: str
    """The name of the file."""
    name: str
    """What the names of its blocks begin with; empty where they stay as they are."""
    blocks: list[str]
    """The names of its blocks."""
    published: Published | None = None
    """Figures that a paper states."""


class StoredStudy(Stored):
    """The content of study.json."""

    name: str = Field(min_length=1)
    """The name of the study."""
    title: str = ""
    """The headline of a report."""
    description: str = ""
    """What the study shows."""
    blocks: list[_StoredBlock] = Field(default_factory=list)
    """The blocks of the study file."""
    published: Published | None = None
    """Figures that a paper states."""
    studies: list[_StoredPart] = Field(default_factory=list)
    """The studies that it includes."""
    command: str = ""
    """The command of the sweep."""
    cache: str = ""
    """The cache of the runs."""
    versions: dict[str, str | int | None] = Field(default_factory=dict)
    """The versions of what made the runs."""
