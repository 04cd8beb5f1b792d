"""The seal of the cache's HDF5 files: 512 bytes before the HDF5 data that name the kind, the schema and a SHA-256.

    fsmm-shard 1 sha256=<hex of all bytes after byte 512>\\n      padded with zeros to 512 bytes

HDF5 calls such a region a user block and skips it, so any reader opens the file as it is. The seal is written last
and checked first: HDF5's own parser need not survive damaged metadata.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import h5py

from .._version import __version__
from ..errors import CacheError
from ..machine.files import write_bytes
from .schema import OLDER_SCHEMAS, SCHEMA_VERSION, SHARD_SCHEMA

CATALOG_KIND, SHARD_KIND, INDEX_KIND = "fsmm-catalog", "fsmm-shard", "fsmm-index"
READ_SCHEMAS: dict[str, tuple[int, ...]] = {
    CATALOG_KIND: (SCHEMA_VERSION, *OLDER_SCHEMAS),
    SHARD_KIND: (SHARD_SCHEMA,),
    INDEX_KIND: (1,),
}
"""The schemas of each kind of file that are read; the first is the one that is written."""
HEADER_BYTES = 512
_LINE = re.compile(rb"(fsmm-[a-z]+) (\d{1,9}) sha256=")


def write_sealed(path: Path, kind: str, fill: Callable[[h5py.File], None]) -> None:
    """Write an HDF5 file that is whole or absent: it is made and sealed in memory, written, flushed, and renamed.

    ``fill`` puts the contents into the open file. HDF5 itself writes to memory alone, because it may crash where a disk
    is full. Raises CacheError where the file cannot be written (no space, no permission, a text that HDF5 cannot
    hold); whatever else ``fill`` raises passes through. In neither case is anything left behind.
    """
    try:
        image = io.BytesIO()
        with h5py.File(image, "w", userblock_size=HEADER_BYTES) as file:
            fill(file)
        with image.getbuffer() as contents:
            digest = hashlib.sha256(contents[HEADER_BYTES:]).hexdigest()
            contents[:HEADER_BYTES] = _header(kind, digest, READ_SCHEMAS[kind][0])
            write_bytes(path, contents, durable=True)
    # h5py raises RuntimeError where closing a file fails, ValueError for texts that HDF5 cannot hold.
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0][:200]
        raise CacheError(f"{str(path)!r} could not be written: {reason}.") from error


def file_digest(path: Path) -> str:
    """The SHA-256 of everything after the header, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(HEADER_BYTES)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def empty_claim(path: Path) -> str:
    """A clause about a file that claims far more bytes than lie on the disk; "" for any other file.

    Such a file (a sparse one) is a few bytes long to send and takes hours to read. File systems that compress are
    allowed for: a claim is refused where it exceeds the bytes on disk fourfold, and by more than a gigabyte.
    """
    facts = path.stat()
    blocks = getattr(facts, "st_blocks", None)  # Windows does not tell.
    if blocks is None or facts.st_size <= 4 * 512 * blocks + (1 << 30):
        return ""
    return f"it claims {facts.st_size:,} bytes, of which {512 * blocks:,} lie on the disk"


def header_is_right(path: Path, kind: str) -> bool:
    """Whether the header is, byte for byte, the one that a file of this kind, its schema and its contents must have.

    It is not for a file that claims far more bytes than lie on the disk, which is not read.
    """
    return _header_schema(path, kind) in READ_SCHEMAS[kind]


def _header_schema(path: Path, kind: str) -> int | None:
    """The schema that the header names; None where it is not the header that the contents must have."""
    if empty_claim(path):
        return None
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES)
    found = _LINE.match(header)
    if not found or found[1].decode() != kind:
        return None
    schema = int(found[2])
    return schema if header == _header(kind, file_digest(path), schema) else None


def sealed_line(head: bytes) -> bytes:
    """The line of a file's first bytes that names kind, schema and digest; b"" where fsmm did not write it."""
    line = head.partition(b"\n")[0]
    return line if _LINE.match(line) else b""


def header_kind(path: Path) -> str | None:
    """The kind that the header claims, whatever follows it; None where fsmm did not write the header."""
    with open(path, "rb") as file:
        found = _LINE.match(file.read(HEADER_BYTES))
    return found[1].decode() if found else None


def refuse_other_schema(path: Path, kind: str) -> None:
    """Raise CacheError where the file is whole and of another schema, and not only a digit of its header is damaged."""
    if _header_schema(path, kind) in (None, *READ_SCHEMAS[kind]):
        return
    try:
        with h5py.File(path, "r") as file:  # The HDF5 part is whole, and safe to open.
            check_schema(file, path, kind)
    except CacheError:
        raise
    except Exception as error:  # Whoever crafts a file can seal it, too, and h5py raises nearly anything.
        raise CacheError(f"{str(path)!r} is damaged ({error}).") from None


def check_schema(file: h5py.File, path: Path, kind: str) -> None:
    """Raise CacheError where the file is not of this kind or is of another schema version."""
    if file.attrs.get("kind") != kind:
        raise CacheError(f"{str(path)!r} is not an {kind} file.")
    found = int(file.attrs.get("schema", 0))
    if found not in READ_SCHEMAS[kind]:
        read = " and ".join(map(str, sorted(READ_SCHEMAS[kind])))
        raise CacheError(
            f"{str(path)!r} has cache schema {found}; this fsmm {__version__} reads schema {read}: "
            "use the fsmm that wrote it, or extract again into a new cache."
        )


def _header(kind: str, digest: str, schema: int) -> bytes:
    return f"{kind} {schema} sha256={digest}\n".encode().ljust(HEADER_BYTES, b"\0")
