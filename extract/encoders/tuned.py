"""Tuned encoders: what `fsmm encoder-tune` writes is an encoder of its own, named ``tuned:FOLDER``.

The folder holds the whole network (safetensors), the kept layers of a projection if there are some, a record of how the
encoder came about, and the digests of these files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.schema import StreamName
from ...errors import FsmmError, UsageError, WeightsError
from ...machine.digests import SUMS, changed_files
from ...machine.files import read_table
from ..contract import Encoder
from . import build
from .base import BaseEncoder, Spec, per_clip
from .references import Reference

if TYPE_CHECKING:
    from .tunable import Tunable

FAMILY = "tuned"
RECORD, NETWORK, PROJECTION = "tuned.json", "model.safetensors", "projection.safetensors"
_CHUNK = 64
_TEXTS = ("name", "encoder", "weights_sha256")  # the texts without which a record is none


@dataclass(frozen=True)
class TunedReference:
    """A tuned encoder that is named by its folder."""

    folder: Path
    """The folder that `fsmm encoder-tune` wrote."""

    @classmethod
    def parse(cls, modality: str, text: str) -> TunedReference:
        """The reference of ``tuned:FOLDER``. Raises UsageError for another modality than frame, or no folder."""
        folder = text.partition(":")[2]
        if not folder:
            raise UsageError(f"Encoder {text!r} names no folder; write {FAMILY}:FOLDER.")
        if modality != "frame":
            raise UsageError(f"Tuned encoders make 'frame' streams, not {modality!r} ones.")
        return cls(Path(folder).expanduser())

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """How the encoder came about. Raises WeightsError where the folder is no tuned encoder, or is damaged."""
        shown = repr(str(self.folder))
        if not (self.folder / RECORD).is_file():
            raise WeightsError(
                f"The folder {shown} holds no tuned encoder ({RECORD} is missing); give the --out of a finished "
                "`fsmm encoder-tune`, or run that again to finish it."
            )
        record = read_table(self.folder / RECORD, "record of a tuned encoder", error=WeightsError)
        names = [RECORD, NETWORK, *([PROJECTION] if record.get("projection_sha256") else [])]
        try:
            damaged = [SUMS] if not (self.folder / SUMS).is_file() else changed_files(self.folder, names)
        except FsmmError as error:
            raise WeightsError(str(error)) from None
        if damaged or not all(isinstance(record.get(key), str) for key in _TEXTS):
            raise WeightsError(
                f"The tuned encoder in {shown} is damaged ({(damaged or [RECORD])[0]} is not as it was written); "
                "copy the folder again, or tune it again."
            )
        return record

    @property
    def base(self) -> str:
        """The name, or the model, of the encoder that was tuned first."""
        return str(self.record["encoder"])

    @property
    def name(self) -> str:
        """The encoder's part of the stream's name."""
        return str(self.record["name"])

    @property
    def stream(self) -> StreamName:
        """The stream that the encoder makes."""
        return StreamName("frame", self.name)

    def build(self, device: str = "cpu", precision: str = "float32") -> TunedEncoder:
        """The encoder. Raises WeightsError where its files cannot be used, UsageError where its library is missing."""
        file = self.folder / NETWORK
        if ":" in self.base:
            inner = Reference.parse("frame", f"{self.base}@{file}").build(device, precision)
        else:
            inner = build(self.base, weights=file, device=device, precision=precision)
        assert isinstance(inner, BaseEncoder), "encoders that can be tuned derive from it"
        layers = self.folder / PROJECTION if self.record.get("projection_sha256") else None
        return TunedEncoder(inner, self.record, layers, device)


class TunedEncoder(BaseEncoder):
    """An encoder with tuned weights, and behind it the kept layers of a projection if there are some."""

    on_gpu = True

    def __init__(
        self, inner: BaseEncoder, record: Mapping[str, Any], layers: Path | None, device: str
    ) -> None:
        dim = inner.dim if layers is None else int(record["dim"])
        super().__init__(Spec(name=str(record["name"]), modality=inner.modality, dim=dim, device=device))
        self.inner, self.record, self.layers = inner, record, layers
        self.need, self.batch_clips = inner.need, inner.batch_clips

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """What the tuned network reads of a clip's frames. Raises DecodeError as the network's own encoder does."""
        return self.inner.prepare(raw)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        found = self.inner.encode(batch)
        if self.layers is None:
            return found
        from .torch_run import run_in_chunks

        layers, device = self.network
        rows = run_in_chunks(lambda x: projected(x, layers), np.concatenate(found), _CHUNK, device)
        return per_clip(rows, found)

    def _load(self) -> Any:
        """The kept layers of the projection and their device, with the network in front of them loaded."""
        from ...machine.device import pick_device

        _ = self.inner.network
        device = pick_device(self.spec.device)
        return ([] if self.layers is None else read_layers(self.layers, device)), device

    def provenance(self) -> dict[str, str]:
        """The provenance of the network's own encoder with the tuned weights, and what they were tuned by and on."""
        stated = self.inner.provenance()
        kept = f", {self.record['kept_layers']} kept layers of the projection" if self.layers else ""
        return {
            **stated,
            "weights": f"{self.record['encoder']}, tuned",
            "weights_sha256": str(self.record["weights_sha256"]),
            "preprocessing": stated["preprocessing"] + kept,
            **{key: str(self.record.get(key, "")) for key in FURTHER},
        }

    def tunable(self) -> Tunable:
        """The network as it can be tuned further. Raises UsageError where layers of a projection stand behind it."""
        if self.layers is not None:
            raise UsageError(
                f"Encoder {self.name!r} ends in layers of a projection, and is not tuned further; tune its network "
                "with another objective first."
            )
        return self.inner.tunable()


FURTHER = (
    "projection_sha256", "tuned_from", "tuned_from_sha256", "objective", "tuned_on", "tuned_clips_sha256", "tuned_seed",
)  # fmt: skip
"""What the provenance of a tuned encoder's features says beyond that of other encoders."""


def tunable_of(encoder: Encoder) -> Tunable:
    """The network of an encoder as it can be tuned. Raises UsageError for an encoder that has none."""
    if not isinstance(encoder, BaseEncoder):
        raise UsageError(f"Encoder {encoder.name!r} offers no network that can be tuned; choose another one.")
    return encoder.tunable()


def parse_reference(modality: str, text: str) -> Reference | TunedReference:
    """The encoder that ``text`` names by its model or its folder. Raises UsageError for one that cannot be."""
    tuned = text.partition(":")[0] == FAMILY
    return TunedReference.parse(modality, text) if tuned else Reference.parse(modality, text)


def read_layers(path: Path, device: Any) -> list[tuple[Any, Any]]:
    """The weight [E, D] and bias [E] of each kept layer of a projection, in order. Raises WeightsError."""
    from ..weights.checkpoint import read_checkpoint, unfit

    state = read_checkpoint(path)
    try:
        pairs = [
            (state[f"{i}.weight"], state[f"{i}.bias"]) for i in range(sum(".weight" in k for k in state))
        ]
    except KeyError as error:
        raise unfit(path, error) from None
    return [(weight.to(device), bias.to(device)) for weight, bias in pairs]


def projected(x: Any, layers: Sequence[tuple[Any, Any]]) -> Any:
    """The features [..., D], brought to entries near one, after linear layers that each end in a ReLU."""
    from torch.nn import functional as F

    x = F.normalize(x, dim=-1) * x.shape[-1] ** 0.5
    for weight, bias in layers:
        x = F.linear(x, weight, bias).relu()
    return x
