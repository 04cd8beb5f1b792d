"""SHA-256 digests of files, and of all files that belong together, in the form that ``sha256sum --check`` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import FsmmError
from .files import refuse_special, whole_or_absent

SUMS = "SHA256SUMS"
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^/\s]+)")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path, names: Sequence[str], into: str = SUMS) -> None:
    """Write the digests of these files of a folder into its file ``into``, whole or absent."""
    with whole_or_absent(folder / into) as temporary:
        temporary.write_text(sums_text({name: file_sha256(folder / name) for name in names}), "utf-8")


def sums_text(digests: Mapping[str, str]) -> str:
    """The lines of a list of digests, which are given by the names of the files."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items())


def read_sums(folder: Path) -> dict[str, str] | None:
    """The digests of a folder's SHA256SUMS by the names of the files, or None where it has none.

    Raises FsmmError where SHA256SUMS cannot be read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> read_sums(folder) is None
    True
    >>> _ = (folder / "answer.txt").write_text("42")
    >>> write_sums(folder, ["answer.txt"])
    >>> read_sums(folder)["answer.txt"][:8]
    '73475cb4'
    """
    path = folder / SUMS
    refuse_special(path, "list of digests", error=FsmmError)
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise FsmmError(f"The list of digests {str(path)!r} cannot be read ({error}).") from None
    found = [_LINE.fullmatch(line) for line in lines]
    if not found or None in found:
        raise FsmmError(
            f"The list of digests {str(path)!r} is damaged; delete it to have its files read unchecked."
        )
    return {match["name"]: match["digest"] for match in found if match}


def changed_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the files ``names`` whose bytes are not the ones of which the folder's SHA256SUMS has the digest.

    A file without a digest counts as changed; a folder without SHA256SUMS has none that is changed. Raises FsmmError
    where SHA256SUMS or a file cannot be read.
    """
    sums = read_sums(folder)
    if sums is None:
        return []
    try:
        return [name for name in names if sums.get(name) != file_sha256(folder / name)]
    except OSError as error:
        raise FsmmError(f"{error.filename!r} cannot be read ({error.strerror or error}).") from None
