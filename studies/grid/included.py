"""Studies within a study: the files that ``studies`` names, whose blocks belong to the study that names them.

An included study keeps what its own file says: its ``fixed`` options, ``free_rows`` and ``published`` figures concern
its own blocks, and nothing of the file that names it but ``set`` changes them. Its runs thus have the keys that they
have when its file is swept by itself, and a folder that one of them has filled serves the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import UsageError, unknown
from ...runs.job import Place
from .data import DataFacts
from .expand import PlannedRun, expand, refuse_too_many
from .free_rows import free_rows
from .optional import lacking
from .presets import presets
from .spec import Included, StudyDocument, read_study_file

MOST_STUDIES = 100
"""The number of studies that one study may include, at whatever depth."""
DEEPEST = 5
"""How deep studies may include one another."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A study file whose blocks belong to a study: the study's own, or one that it includes."""

    document: StudyDocument
    """The file."""
    name: str = ""
    """What the names of its blocks begin with; empty where they stay as they are."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """The options that win over those of the file."""
    above: tuple[Part, ...] = ()
    """The parts that lead to this one, the study's own first."""
    place: int = 0
    """The position of its entry in the ``studies`` of the part that names it."""

    def block(self, name: str) -> str:
        """The name that a block of the file has in the study."""
        return f"{self.name}.{name}" if self.name else name

    def error(self, sentence: str) -> UsageError:
        """The error of the entry that names this part, with the line of that entry."""
        if not self.above:
            return self.document.error(("studies",), sentence)
        return self.above[-1].document.error(("studies", self.place), sentence)


def parts_of(document: StudyDocument) -> list[Part]:
    """The parts of a study in their order: its own blocks, then each study that it includes with those within that.

    Raises UsageError, with the file and the line, for a study that cannot be included, and for two blocks of one name.
    """
    parts: list[Part] = []
    for part in _walk(Part(document=document)):
        parts.append(part)
        if len(parts) > MOST_STUDIES + 1:
            raise part.error(
                f"the study includes more than {MOST_STUDIES} others; make several studies of it."
            )
    _refuse_clashes(parts)
    return parts


def _walk(part: Part) -> Iterator[Part]:
    """A part, and all that it includes."""
    yield part
    for place, entry in enumerate(part.document.file.studies):
        yield from _walk(_included(part, place, entry))


def _included(part: Part, place: int, entry: Included) -> Part:
    """The part that an entry of ``studies`` names. Raises UsageError where there is none that may be read."""
    at = ("studies", place, "file")
    above = (*part.above, part)
    if len(above) > DEEPEST:
        raise part.document.error(at, f"studies include one another more than {DEEPEST} deep.")
    try:
        path, where = _file_of(part.document, entry.file)
    except UsageError as error:
        raise part.document.error(at, str(error)) from None
    chain = [each.document for each in above]
    if path.resolve() in [each.path.resolve() for each in chain if each.path is not None]:
        names = " -> ".join([*(each.where for each in chain), where])
        raise part.document.error(at, f"the study would include itself ({names}).")
    return Part(
        document=read_study_file(path, where),
        name=".".join(filter(None, (part.name, entry.name))),
        overrides={**entry.set, **part.overrides},
        above=above,
        place=place,
    )


def _file_of(document: StudyDocument, text: str) -> tuple[Path, str]:
    """The file that an entry names, or the preset, and its name in sentences.

    Raises UsageError where there is neither, and where a path leaves the folder of the file that names it.
    """
    pure, folder = PurePosixPath(text), Path() if document.path is None else document.path.parent
    if pure.is_absolute() or ".." in pure.parts:
        raise UsageError(
            f"{text!r} leaves the folder of {document.where}; paths are relative and hold no '..'."
        )
    path = folder / text
    try:
        found, exists = path.is_file(), path.exists()
    except OSError:
        found = exists = False
    if not found and text in presets():
        return presets()[text], f"{text}.yaml"
    if exists and not found:
        raise UsageError(f"{text!r} is not a plain file; name a study file.")
    if not found and pure.suffix in (".yaml", ".yml"):
        raise UsageError(f"there is no study file {text!r} in the folder of {document.where}.")
    if not found:
        raise unknown("study file or preset", text, presets())
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{text!r} is a link that leaves the folder of {document.where}.")
    return path, str(PurePosixPath(document.where).parent / pure)


def _refuse_clashes(parts: Sequence[Part]) -> None:
    """Raise UsageError where two blocks, or two included studies, have one name."""
    of: dict[str, str] = {}
    for part in parts:
        named = bool(part.above) and part.name != part.above[-1].name
        for name in [*([part.name] if named else []), *map(part.block, _block_names(part))]:
            if name in of:
                raise part.error(
                    f"{part.document.where} brings the name {name!r}, which {of[name]} has, too; let an entry say what "
                    f"blocks are called by, as {{file: {part.document.where}, name: {part.document.file.name}}}."
                )
            of[name] = part.document.where


def _block_names(part: Part) -> list[str]:
    return [block.name for block in part.document.file.blocks]


def expand_parts(
    parts: Sequence[Part],
    facts_of: Callable[[str | None], DataFacts],
    place: Place,
    overrides: Mapping[str, Any],
) -> list[PlannedRun]:
    """The runs of all parts in their order, and the rows without training that their files ask for.

    The parameters and errors are those of ``expand``; overrides win over those of the parts.
    """
    found: list[PlannedRun] = []
    free: dict[str, PlannedRun] = {}
    for part in parts:
        if not part.document.file.blocks:
            continue
        runs = expand(part.document, facts_of, place, {**part.overrides, **overrides})
        found += [replace(run, block=part.block(run.block)) for run in runs]
        try:
            refuse_too_many(len(found))
        except UsageError as error:
            raise part.error(str(error)) from None
        if part.document.file.free_rows:
            for row in free_rows(runs, facts_of):
                free.setdefault(str(row.job), row)  # Two parts may have a task in common.
    if not found:
        reasons = left_out(parts, facts_of, place, overrides)
        raise UsageError(f"No block of {parts[0].document.where} can be run: {next(iter(reasons.values()))}")
    return [*found, *free.values()]


def left_out(
    parts: Sequence[Part],
    facts_of: Callable[[str | None], DataFacts],
    place: Place,
    overrides: Mapping[str, Any],
) -> dict[str, str]:
    """The optional blocks that are left out, by name, with the sentence that says what the cache lacks."""
    reasons = {
        part.block(block.name): lacking(
            part.document,
            block,
            facts_of=facts_of,
            place=place,
            overrides={**part.overrides, **overrides},
        )
        for part in parts
        for block in part.document.file.blocks
    }
    return {name: reason for name, reason in reasons.items() if reason}


def chosen_blocks(
    only: Sequence[str],
    planned: Sequence[PlannedRun],
    parts: Sequence[Part],
    without: Mapping[str, str],
) -> set[str]:
    """The names of the blocks that ``--only`` chooses: by themselves, or by the name of an included study; else all.

    without: the blocks that are left out, each with the reason. Raises UsageError, which names the nearest, for a name
    that the study does not have, and for one of these.
    """
    known = list(dict.fromkeys(run.block for run in planned))
    names = list(dict.fromkeys(part.name for part in parts if part.name))
    for name in only:
        if name in without:
            raise UsageError(f"Block {name!r} is left out: {without[name]}")
        if name not in known and name not in names:
            raise unknown("block", name, [*known, *names])
    within = tuple(f"{name}." for name in only if name in names)
    return {block for block in known if not only or block in only or block.startswith(within)}
