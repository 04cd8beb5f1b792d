"""The lists of the audio-visual generalised zero-shot benchmarks: one CSV file a stage, with the columns they have.

UCF has ``filename,label,label_code``, ActivityNet ``filename,label_code,label``, VGGSound ``youtube_id,start_seconds,
label,split,filename,label_code,category``: columns are found by their names, and ``filename`` and ``label`` are read.
A video that several stages list is of the first; stage_2_train repeats those of stage 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import UsageError
from ...machine.texts import composed, read_csv
from .video_lists import Listed, stem_of

STAGES = {
    "stage_1_train": "train",
    "stage_1_val_seen": "val",
    "stage_1_val_unseen": "val",
    "stage_2_test_seen": "test",
    "stage_2_test_unseen": "test",
    "stage_2_train": "train",
}
"""The split of the clips of each stage, in the order in which stages count."""


def read_stages(place: Path, hints: Sequence[str]) -> list[Listed]:
    """The videos of the stages whose CSV files are at ``place``, a file or a folder that holds them at any depth.

    Where a folder holds several files of one stage, those in a folder ``main_split`` count, which list the same videos
    as those of ``cls_split``. hints: parts of paths by which those of one data set are told from others. Raises
    UsageError where there is none, or one lacks its columns.
    """
    if not place.exists():
        raise UsageError(f"The lists {str(place)!r} do not exist; check --lists.")
    files = [place] if place.is_file() else sorted(place.rglob("stage_*.csv"))
    for word in (*hints, "main_split"):
        files = [path for path in files if word in path.relative_to(place).as_posix().lower()] or files
    of_stage = {stage: _one([path for path in files if path.stem == stage], place) for stage in STAGES}
    if not any(of_stage.values()):
        raise UsageError(f"There is no list such as 'stage_1_train.csv' at {str(place)!r}; check --lists.")
    seen: dict[str, Listed] = {}
    for stage, path in of_stage.items():
        for line in [] if path is None else _lines(path, STAGES[stage]):
            seen.setdefault(line.video, line)
    return list(seen.values())


def _one(paths: Sequence[Path], place: Path) -> Path | None:
    """The only file of a stage; None where there is none. Raises UsageError where there are several."""
    if len(paths) > 1:
        raise UsageError(
            f"Several files {paths[0].name!r} are at {str(place)!r}; name the folder of one data set by --lists."
        )
    return paths[0] if paths else None


def _lines(path: Path, split: str) -> list[Listed]:
    table = read_csv(path)
    columns = [name.strip().lower() for name in table.columns]
    if absent := [name for name in ("filename", "label") if name not in columns]:
        raise UsageError(f"{path.name!r} has no column {absent[0]!r}; it has {', '.join(table.columns)}.")
    video, label = columns.index("filename"), columns.index("label")
    return [
        Listed("", composed(cells[label].strip()), -1, composed(stem_of(cells[video].strip())), split)
        for _, cells in table.rows
    ]
