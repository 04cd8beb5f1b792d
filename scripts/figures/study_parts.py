"""The parts of a study's folder: a study by itself, or each of those that a study such as results.yaml includes."""

from __future__ import annotations

import sys
from dataclasses import replace

from fsmm.studies.grid.store import Study

ONE = "results"
"""The study that includes the others."""


def part_of(study: Study, name: str) -> Study | None:
    """The study of this name: the folder's own, or one that it includes, whose blocks are called as in its own file.

    None where it is neither.
    """
    if study.name == name:
        return study
    prefix = f"{name}."
    rows = [
        replace(row, block=row.block.removeprefix(prefix))
        for row in study.rows
        if row.block.startswith(prefix)
    ]
    return replace(study, rows=rows) if rows else None


def part_or_exit(study: Study, name: str) -> Study:
    """The same; exits with a sentence where there is none."""
    part = part_of(study, name)
    if part is None:
        sys.exit(f"{study.folder} holds neither the study {name!r} nor one that includes it.")
    return part


def command_of_part(study: Study, name: str, alone: str) -> str:
    """The command that makes a part again.

    name: the part's name. alone: the command where the folder is that of this study by itself.
    """
    if study.name == name:
        return alone
    return f"fsmm sweep examples/{ONE}.yaml --cache CACHE --out {ONE} --only {name}"
