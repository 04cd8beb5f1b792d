"""Encoders by reference: any model of certain libraries, from its hub or a local file, without a row of the table.

A reference is written ``FAMILY:MODEL``, with ``/TAG`` for open_clip's pretrained weights and ``@FILE`` for a local
checkpoint: ``openclip:ViT-B-32/laion2b_s34b_b79k``, ``timm:vit_base_patch16_224.mae@/models/mae.safetensors``. An
option follows ``#``: for class words ``#ensemble`` or a file of prompt templates, else what the family's encoder knows.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...cache.schema import StreamName
from ...errors import UsageError, install_hint, unknown
from ..weights import store
from ..weights.archives import file_sha256
from ..weights.folders import own_folder
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
    """A library whose models are named by reference.

    file: the name of the checkpoint in the weight cache; "" where no hub has the models. targets: the encoder's module
    and class for each modality. needs: the modules that must be installed; extra: what of fsmm's brings them.
    options: those that encoders take, by modality; an empty tuple is any. is_folder: whether a model is a
    folder of files, whose hub names it OWNER/NAME.
    """

    library: str
    file: str
    targets: dict[str, tuple[str, str]]
    needs: tuple[str, ...] = ()
    extra: str = "encoders"
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_folder: bool = False


FAMILIES = {
    "openclip": Family(
        library="open_clip",
        file="open_clip_model.safetensors",
        targets={"frame": ("openclip", "OpenClipFrame"), "word": ("openclip", "OpenClipText")},
        needs=("open_clip", "torchvision"),
        options={"frame": ("unprojected",)},
    ),
    "timm": Family(
        library="timm",
        file="model.safetensors",
        targets={"frame": ("timm_tower", "TimmTower")},
        needs=("timm", "torchvision"),
    ),
    "pytorchvideo": Family(
        library="pytorchvideo",
        file="model.pyth",
        targets={"frame": ("video_hub", "HubVideo")},
        needs=("pytorchvideo", "torchvision"),
    ),
    "simclr": Family(
        library="torch",
        file="",
        targets={"frame": ("simclr", "SimClr")},
        options={"frame": ("1", "2", "3")},
    ),
    "hf": Family(
        library="transformers",
        file="config.json",
        targets={
            "frame": ("hub_pictures", "HubPictures"),
            "audio": ("hub_sound", "HubSound"),
            "video": ("hub_joint", "HubJoint"),
            "word": ("hub_words", "HubWords"),
        },
        needs=("transformers",),
        extra="hub",
        options={"audio": ()},
        is_folder=True,
    ),
    "st": Family(
        library="sentence_transformers",
        file="modules.json",
        targets={"word": ("hub_words", "SentenceWords")},
        needs=("sentence_transformers",),
        extra="hub",
        is_folder=True,
    ),
}


@dataclass(frozen=True)
class Reference:
    """One encoder that is named by its model. file: the user's checkpoint; None if the model's hub has it.

    option: of class words the prompt templates ("" for one, "ensemble" for fsmm's own set, else a file of templates),
    else what the family's encoder knows, "" for the usual.
    """

    modality: str
    family: str
    model: str
    tag: str = ""
    file: Path | None = None
    option: str = ""

    @classmethod
    def parse(cls, modality: str, text: str) -> Reference:
        """The reference that ``text`` writes. Raises UsageError for one that no encoder can have."""
        family, _, rest = text.partition(":")
        if family not in FAMILIES:
            raise unknown("family of encoders", family, FAMILIES)
        row = FAMILIES[family]
        if modality not in (made := row.targets):
            raise UsageError(
                f"Models of {family!r} make {' and '.join(made)} streams, not {modality!r} ones."
            )
        rest, at, file = rest.partition("@")
        rest, _, option = rest.partition("#")
        model, _, tag = (rest, "", "") if row.is_folder else rest.partition("/")
        if not model or (at and not file):
            raise UsageError(f"Encoder {text!r} names no model or file; write {family}:MODEL@FILE.")
        if not row.file and not file:
            raise UsageError(f"No hub has the models of {family!r}; add @FILE, a checkpoint of yours.")
        if family == "openclip" and not (tag or file):
            raise UsageError(
                f"Encoder {text!r} has no weights; add /TAG (pretrained weights) or @FILE (a checkpoint)."
            )
        if family != "openclip" and tag:
            raise UsageError(
                f"Models of {family!r} have no /TAG; a tag of timm belongs to the name, such as timm:resnet50.a1_in1k."
            )
        if option and modality != "word":
            _check_option(family, modality, option)
        return cls(
            modality=modality,
            family=family,
            model=model,
            tag=tag,
            file=Path(file).expanduser() if file else None,
            option=option,
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
            parts += filter(None, (TEXT, templates_of(self.option).name))
        elif self.option:
            parts.append(re.sub(r"[^a-z0-9.]+", "-", self.option.lower()))
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

    @property
    def _family(self) -> Family:
        return FAMILIES[self.family]

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
            return (own_folder if self._family.is_folder else store.own_file)(self.label, self.file)
        row = Weights(
            self._family.file, self._hub.library, "not verified", 0, hub=self._hub, asked=self.label
        )
        path = store.fetch(self._slug, row)
        if self._family.is_folder:
            return own_folder(self.label, path.parent)
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
            templates=templates_of(self.option).texts if self.modality == "word" else (),
            option="" if self.modality == "word" else self.option,
        )
        module, kind = self._family.targets[self.modality]
        return cast("Encoder", getattr(importlib.import_module(f".{module}", __package__), kind)(spec))

    def _check_known(self) -> None:
        library = self._family.library
        if missing := [module for module in self._family.needs if find_spec(module) is None]:
            raise UsageError(
                f"Encoder {self.label!r} needs {', '.join(missing)}: {install_hint(self._family.extra)}."
            )
        if self._family.is_folder:
            if self.file is None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.model):
                raise UsageError(f"{self.label!r} is no model of a hub; write OWNER/NAME, or add @FOLDER.")
            return
        if self.family == "simclr":
            from .simclr import form_of

            form_of(self.model)
            return
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


def _check_option(family: str, modality: str, option: str) -> None:
    """Raise UsageError for an option that the family's encoder of a modality other than words does not know."""
    known = FAMILIES[family].options.get(modality)
    if known is None:
        raise UsageError(
            f"Models of {family!r} have no #{option} for {modality!r} streams; prompt templates are for word streams."
        )
    if known and option not in known:
        raise unknown(f"option of {family!r} for {modality!r} streams", option, known)


def is_reference(text: str) -> bool:
    """Whether ``text`` names an encoder by its model, not by a row of the table.

    >>> is_reference("openclip:ViT-B-32/laion2b_s34b_b79k"), is_reference("openclip-vit-b-32")
    (True, False)
    """
    return ":" in text
