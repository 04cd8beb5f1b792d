"""The videos of Something-Something V2: numbered files, whose classes are said by JSON files beside them.

Such a file is a list of records with ``id`` and ``template`` (a class, with ``[something]`` for each object) or
``label``. A file of another form, such as the one that numbers the classes, is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...machine.files import parsed_json, refuse_special
from ...machine.texts import composed
from .base import DatasetOptions, Listing
from .benchmark import Benchmark, benchmark_listing, name_of
from .class_facts import class_facts, class_key
from .walk import Walk, walk


def numbered_listing(benchmark: Benchmark, data: Path | None, options: DatasetOptions) -> Listing:
    """The clips of a benchmark of Something-Something V2.

    Lists that name or number the classes make the JSON files dispensable, and these give numbered classes their names.
    Raises UsageError where there are neither, or no video.
    """
    if data is None:
        raise UsageError(f"Dataset {benchmark.name!r} needs --data: the folder of the numbered videos.")
    found = walk(data, follow_links=options.follow_links, frame_rate=options.frame_rate)
    labels = _labels(benchmark.name, found, every_class=options.lists is not None)
    if not labels and options.lists is None:
        raise UsageError(
            f"The classes of the numbered videos below {str(data)!r} are not known: put the JSON files with 'id' and "
            "'template' beside them, or name published lists by --lists."
        )
    return benchmark_listing(replace(benchmark, labels=labels), found, data, options)


def _labels(name: str, found: Walk, *, every_class: bool) -> dict[str, str]:
    """The class of each video that the JSON files name; every_class: also of classes that the benchmark lacks."""
    by_key = class_facts(name).by_key()
    labels: dict[str, str] = {}
    for path in found.others:
        if path.lower().endswith(".json"):
            for video, template in _records(found.root / path):
                plain = composed(template.replace("[", "").replace("]", "").strip())
                if label := by_key.get(class_key(plain), plain if every_class else ""):
                    labels[video] = label
    return labels


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """The id and the class of each record of a JSON file; none where it is of another form."""
    refuse_special(path, "JSON file")
    try:
        content: Any = parsed_json(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The JSON file {str(path)!r} cannot be read ({error}).") from None
    for record in content if isinstance(content, list) else ():
        if isinstance(record, dict) and "id" in record:
            template = record.get("template", record.get("label"))
            if isinstance(template, str):
                yield name_of(str(record["id"])), template
