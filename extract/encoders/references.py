"""Encoders by reference: any model of open_clip, timm or pytorchvideo, from its hub or a local file, without a row.

A reference is written ``FAMILY:MODEL``, with ``/TAG`` for open_clip's pretrained weights and ``@FILE`` for a local
checkpoint: ``openclip:ViT-B-32/laion2b_s34b_b79k``, ``timm:vit_base_patch16_224.mae@/models/mae.safetensors``. For
class words, ``#ensemble`` or ``#FILE`` after the model or tag chooses the prompt templates.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...cache.schema import StreamName
from ...errors import UsageError, install_hint, unknown
from ..weights import store
from ..weights.archives import file_sha256
from ..weights.table import Hub, Weights
from ..weights.torchvision_care import ensure_torchvision
from .prompts import TEXT, templates_of
from .video_hub import INPUTS

if TYPE_CHECKING:
    from ..contract import Encoder
    from ..weights.store import Located

_DIGEST = 8  # hexadecimal digits of a local file's hash in the name of its stream


@dataclass(frozen=True)
class Family:
    """A library whose models are named by reference. targets: the encoder's module and class for each modality."""

    library: str
    file: str
    targets: dict[str, tuple[str, str]]


FAMILIES = {
    "openclip": Family(
        library="open_clip",
        file="open_clip_model.safetensors",
        targets={"frame": ("openclip", "OpenClipFrame"), "word": ("openclip", "OpenClipText")},
    ),
    "timm": Family(library="timm", file="model.safetensors", targets={"frame": ("timm_tower", "TimmTower")}),
    "pytorchvideo": Family(
        library="pytorchvideo", file="model.pyth", targets={"frame": ("video_hub", "HubVideo")}
    ),
}


@dataclass(frozen=True)
class Reference:
    """One encoder that is named by its model. file: the user's checkpoint; None if the model's hub has it.

    prompts: "" for one prompt template, "ensemble" for fsmm's own set, else a file of templates.
    """

    modality: str
    family: str
    model: str
    tag: str = ""
    file: Path | None = None
    prompts: str = ""

    @classmethod
    def parse(cls, modality: str, text: str) -> Reference:
        """The reference that ``text`` writes. Raises UsageError for one that no encoder can have."""
        family, _, rest = text.partition(":")
        if family not in FAMILIES:
            raise unknown("family of encoders", family, FAMILIES)
        if modality not in (made := FAMILIES[family].targets):
            raise UsageError(
                f"Models of {family!r} make {' and '.join(made)} streams, not {modality!r} ones."
            )
        rest, at, file = rest.partition("@")
        rest, _, prompts = rest.partition("#")
        model, _, tag = rest.partition("/")
        if not model or (at and not file):
            raise UsageError(f"Encoder {text!r} names no model or file; write {family}:MODEL@FILE.")
        if family == "openclip" and not (tag or file):
            raise UsageError(
                f"Encoder {text!r} has no weights; add /TAG (pretrained weights) or @FILE (a checkpoint)."
            )
        if family != "openclip" and tag:
            raise UsageError(
                f"Models of {family!r} have no /TAG; a tag of timm belongs to the name, such as timm:resnet50.a1_in1k."
            )
        if prompts and modality != "word":
            raise UsageError(
                f"Prompt templates (#{prompts}) are for word streams, not for {modality!r} ones."
            )
        return cls(
            modality=modality,
            family=family,
            model=model,
            tag=tag,
            file=Path(file).expanduser() if file else None,
            prompts=prompts,
        )

    @property
    def label(self) -> str:
        """The model and tag as provenance and messages name them, such as "openclip:ViT-B-32/laion2b_s34b_b79k"."""
        return f"{self.family}:{self.model}" + (f"/{self.tag}" if self.tag else "")

    @property
    def name(self) -> str:
        """The encoder's part of the stream's name; a local file adds the first digits of its hash.

        Raises WeightsError if the file cannot be read, UsageError if its templates cannot.
        """
        parts = [self._slug]
        if self.file is not None:
            parts.append(self._located.sha256[:_DIGEST])
        if self.modality == "word":
            parts += filter(None, (TEXT, templates_of(self.prompts).name))
        return "-".join(parts)

    @property
    def stream(self) -> StreamName:
        """The stream that the encoder makes."""
        return StreamName(self.modality, self.name)

    @property
    def _slug(self) -> str:
        return re.sub(r"[^a-z0-9.+]+", "-", self.label.lower()).strip("-")

    @property
    def _hub(self) -> Hub:
        if self.family == "pytorchvideo":
            return Hub("pytorchvideo", INPUTS[self.model].module, self.model)
        return Hub(FAMILIES[self.family].library, self.model, self.tag)

    def fetch(self) -> Path:
        """The checkpoint on this machine, fetched from the model's hub if it is not there.

        Raises UsageError for a model or tag that the library does not know or if the library is not installed;
        WeightsError if the checkpoint cannot be obtained.
        """
        self._check_known()
        return self._located.path

    @cached_property
    def _located(self) -> Located:
        """The checkpoint with its hash, which takes seconds for a large one and so is made once."""
        if self.file is not None:
            return store.own_file(self.label, self.file)
        row = Weights(
            FAMILIES[self.family].file, self._hub.library, "not verified", 0, hub=self._hub, asked=self.label
        )
        path = store.fetch(self._slug, row)
        return store.Located(path, self.label, file_sha256(path))

    def build(self, device: str = "cpu", precision: str = "float32") -> Encoder:
        """The encoder with its network loaded, because the model's own configuration says what it reads.

        Raises UsageError and WeightsError as :meth:`fetch` does, and WeightsError for a checkpoint that does not fit.
        """
        from .base import Spec

        self._check_known()
        spec = Spec(
            name=self.name,
            modality=self.modality,
            dim=0,
            weights=self._located,
            device=device,
            precision=precision,
            hub=self._hub,
            templates=templates_of(self.prompts).texts if self.modality == "word" else (),
        )
        module, kind = FAMILIES[self.family].targets[self.modality]
        return cast("Encoder", getattr(importlib.import_module(f".{module}", __package__), kind)(spec))

    def _check_known(self) -> None:
        library = FAMILIES[self.family].library
        if missing := [module for module in (library, "torchvision") if find_spec(module) is None]:
            raise UsageError(
                f"Encoder {self.label!r} needs {', '.join(missing)}: {install_hint('encoders')}."
            )
        if self.family == "pytorchvideo":
            if self.model not in INPUTS:
                raise unknown("pytorchvideo model", self.model, INPUTS)
            return
        ensure_torchvision()
        models: Any = importlib.import_module(library)
        if self.family == "timm":
            if not models.is_model(self.model):
                raise unknown("timm model", self.model, models.list_models(pretrained=True))
            return
        if self.model not in models.list_models():
            raise unknown("open_clip model", self.model, models.list_models())
        tags = models.list_pretrained_tags_by_model(self.model)
        if self.file is None and not models.get_pretrained_cfg(self.model, self.tag):
            raise unknown(f"tag of open_clip model {self.model!r}", self.tag, tags)


def is_reference(text: str) -> bool:
    """Whether ``text`` names an encoder by its model, not by a row of the table.

    >>> is_reference("openclip:ViT-B-32/laion2b_s34b_b79k"), is_reference("openclip-vit-b-32")
    (True, False)
    """
    return ":" in text
