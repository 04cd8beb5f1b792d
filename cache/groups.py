"""Groups of clips that come from one source, as the file names of known data sets tell them.

Clips of one long video, one film or one person resemble each other whatever they show, so that an episode whose support
and query share a group is easier than it should be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

_UCF = re.compile(r"v_(?P<group>[A-Za-z]+_g\d+)_c\d+")
_UTD_MHAD = re.compile(r"a\d+_(?P<group>s\d+)_t\d+(_[a-z]+)?")
_NTU = re.compile(r"S\d{3}C\d{3}(?P<group>P\d{3})R\d{3}A\d{3}(_[a-z]+)?")
_HMDB = re.compile(r"(?P<film_and_action>.+)_[fhlu]_(?:nm|cm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+")


def group_by_name(path: str) -> str:
    """The group that a clip's path or id names in the way of a known data set; "" where it names none.

    UCF-101 and UCF-50 number the source videos of a class (``g01``); HMDB-51 begins with the film's or upload's name,
    which ends where the name of the class, the clip's folder, begins; UTD-MHAD and NTU RGB+D name the person.

    >>> group_by_name("Archery/v_Archery_g01_c02.avi"), group_by_name("a1_s2_t3")
    ('Archery_g01', 's2')
    >>> group_by_name("wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi"), group_by_name("wave/12.mp4")
    ('TrumanShow', '')
    """
    place = PurePosixPath(path)
    stem = place.name.partition(".")[0]
    for form in (_UCF, _UTD_MHAD, _NTU):
        if found := form.fullmatch(stem):
            return found["group"]
    found = _HMDB.fullmatch(place.name.rpartition(".")[0] or place.name)
    film, action, rest = (found["film_and_action"] if found else "").rpartition(f"_{place.parent.name}")
    return film if action and not rest else ""


def groups_by_name(ids: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The group of each clip by its path, or by its id where the path names none; "" where neither does."""
    return [group_by_name(path) or group_by_name(clip) for clip, path in zip(ids, paths)]
