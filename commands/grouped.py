"""The help of a command with many options: the options in groups, and examples at the end."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

GENERAL = "General"
"""The group of options that name none."""


class GroupedCommand(TyperCommand):
    """A command whose help has a section for each group of options (their ``rich_help_panel``)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options group by group, in the order of their first options, with the general group at the end."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or GENERAL, []).append(record)
        for title in sorted(groups, key=lambda title: title == GENERAL):
            with formatter.section(title):
                formatter.write_dl(groups[title])


def examples(lines: Sequence[str]) -> str:
    """An epilog that shows command lines as they are typed, one a line."""
    return "\n".join(["\b", "Examples:", *(f"  {inspect.cleandoc(line)}" for line in lines)])
