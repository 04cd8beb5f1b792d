"""The published lists of a few-shot benchmark's videos, one file for each of train, val and test, in all spellings.

=======================================  ===================================================
a line such as                           is that of
=======================================  ===================================================
``air drumming/-VtLx_000012_000022``     CMN, TRX, ARN, AMeFu-Net, TSL: the class and the video
``train0//videos/wave/x.avi``            CLIP-FSAR: behind ``//``, the video's place; its folder is the class
``train8/78687``                         OTAM, CLIP-FSAR: the class by its number only
``195025 38 18``                         TSL: the video, another numbering, the number of the class
``brush hairs``                          AMeFu-Net's HMDB51: a class with all its videos
=======================================  ===================================================
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import UsageError, listed
from ...machine.files import refuse_special
from ...machine.texts import composed

PART_OF = {"train": "base", "val": "val", "test": "novel"}
_ENDINGS = (".list", ".txt")
_NUMBERED = re.compile(r"(?:train|val|test)(\d+)")
_CONTAINER = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}")


class Listed(NamedTuple):
    """One line of a list.

    part: base, val or novel, "" where the list does not divide classes. class_name: as the list spells it, "" where it
    gives a number. number: the class's number in its part, -1 where it has a name. video: the file's name without its
    ending, "" for all videos of the class. clip_split: train, val or test, "" where clips are divided by class alone.
    """

    part: str
    class_name: str
    number: int
    video: str
    clip_split: str = ""


def read_lists(place: Path, hints: Sequence[str]) -> list[Listed]:
    """The lines of the lists at ``place``, a file or a folder that holds them at any depth.

    hints: parts of file names that tell the lists of this data set from those of others in the same folder. Raises
    UsageError where there is no list, several for one part, or a line that is none.
    """
    if not place.exists():
        raise UsageError(f"The lists {str(place)!r} do not exist; check --lists.")
    found: list[Listed] = []
    for word, files in _files(place, hints).items():
        contents = {path: _lines(path, PART_OF[word]) for path in files}
        videos = [path for path, lines in contents.items() if any(line.video for line in lines)]
        chosen = videos or list(contents)
        if len(chosen) > 1:
            names = listed([str(path.relative_to(place)) for path in chosen])
            raise UsageError(
                f"Several files of {str(place)!r} list {word} videos ({names}); name the folder of one set of lists."
            )
        found += contents[chosen[0]]
    if not found:
        raise UsageError(f"No line of the lists {str(place)!r} names a video.")
    return found


def _files(place: Path, hints: Sequence[str]) -> Mapping[str, list[Path]]:
    """The files of lists by train, val and test."""
    paths = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix in _ENDINGS)
    held: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        words = set(re.findall("train|val|test", path.name.lower()))
        if len(words) == 1:  # Lists of several parts at once repeat those of the parts.
            held[words.pop()].append(path)
    if not held:
        raise UsageError(
            f"No list was found at {str(place)!r}: the name of a file of lists says train, val or test and ends in "
            "'.txt' or '.list'."
        )
    return {word: _of_this_data_set(place, files, hints) for word in PART_OF if (files := held.get(word))}


def _of_this_data_set(place: Path, files: list[Path], hints: Sequence[str]) -> list[Path]:
    """The files whose path names the data set, if any of several does."""
    hinted = [p for p in files if any(hint in p.relative_to(place).as_posix().lower() for hint in hints)]
    return hinted if len(files) > 1 and hinted else files


def _lines(path: Path, part: str) -> list[Listed]:
    refuse_special(path, "list of videos")
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The list {str(path)!r} cannot be read ({error}).") from None
    lines = [(number, composed(line.strip())) for number, line in enumerate(text.splitlines(), 1)]
    return [_line(line, part, number, path) for number, line in lines if line]


def _line(line: str, part: str, line_number: int, path: Path) -> Listed:
    if (columns := line.split()) and len(columns) == 3 and all(column.isdecimal() for column in columns):
        return Listed(part, "", int(columns[2]), columns[0])
    below = line.partition("//")[2] or line
    folder, slash, name = below.rpartition("/")
    if not slash:
        return Listed(part, line, -1, "")
    group = PurePosixPath(folder).name
    if not group or not name:
        raise UsageError(
            f"Line {line_number} of {path.name!r} is {line!r}, which names no class and video such as 'wave/12'."
        )
    if found := _NUMBERED.fullmatch(folder):
        return Listed(part, "", int(found[1]), stem_of(name))
    return Listed(part, group, -1, stem_of(name))


def stem_of(name: str) -> str:
    """A file's name without the ending of a container; dots that belong to the name stay.

    >>> stem_of("v_YoYo_g25_c05.avi"), stem_of("78687"), stem_of("Mr._Bean_wave_f_cm")
    ('v_YoYo_g25_c05', '78687', 'Mr._Bean_wave_f_cm')
    """
    place = PurePosixPath(name)
    return place.stem if _CONTAINER.fullmatch(place.suffix) else place.name
