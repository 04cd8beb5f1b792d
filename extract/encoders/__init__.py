"""The table of encoders: name to class, nothing heavy imported to list it.

Adding one is a class in a file of its family, one line here, and its row in ``extract/weights.py`` if it
has weights.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...errors import UsageError, WeightsError, unknown
from ..weights import store
from ..weights.table import WEIGHTS

if TYPE_CHECKING:
    from ..contract import Encoder


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder. target: "module:Class" in this package. dim: 0 where the user's file decides it.

    weights: its row in WEIGHTS; "" for a classical descriptor; "local" where only the user can give a file.
    needs: the modules that must be installed.
    """

    target: str
    modality: str
    dim: int
    about: str
    weights: str = ""
    needs: tuple[str, ...] = ()


LOCAL = "local"
_TFLITE, _CLIP, _VIDEO = (
    ("ai_edge_litert", "flatbuffers"),
    ("open_clip", "torchvision"),
    ("pytorchvideo", "torchvision"),
)

ENCODERS: dict[str, EncoderEntry] = {
    "efficientnet-lite0": EncoderEntry(
        "efficientnet:EfficientNetLite", "frame", 1280, "EfficientNet-Lite0, ImageNet", "efficientnet-lite0"
    ),
    "efficientnet-lite2": EncoderEntry(
        "efficientnet:EfficientNetLite",
        "frame",
        1280,
        "EfficientNet-Lite2 at 260 px, ImageNet",
        "efficientnet-lite2",
    ),
    "efficientnet-lite0-int8": EncoderEntry(
        "efficientnet:EfficientNetLiteInt8",
        "frame",
        1280,
        "EfficientNet-Lite0 in int8: fast on a CPU",
        "efficientnet-lite0-int8",
        _TFLITE,
    ),
    "i3d-rgb": EncoderEntry(
        "i3d:I3dRgb", "frame", 1024, "I3D over 32 frames, Kinetics-400, 4 steps in time", "i3d-rgb"
    ),
    "openclip-vit-b-32": EncoderEntry(
        "openclip:OpenClipFrame", "frame", 512, "CLIP ViT-B/32, LAION-2B", "openclip-vit-b-32", _CLIP
    ),
    "openclip-vit-b-16": EncoderEntry(
        "openclip:OpenClipFrame", "frame", 512, "CLIP ViT-B/16, LAION-2B", "openclip-vit-b-16", _CLIP
    ),
    "openclip-vit-l-14": EncoderEntry(
        "openclip:OpenClipFrame", "frame", 768, "CLIP ViT-L/14, LAION-2B", "openclip-vit-l-14", _CLIP
    ),
    "x3d-s": EncoderEntry(
        "video3d:Video3d", "frame", 192, "X3D-S, Kinetics-400, 4 windows of 2.6 s", "x3d-s", _VIDEO
    ),
    "slowfast-r50": EncoderEntry(
        "video3d:Video3d",
        "frame",
        2304,
        "SlowFast R50 8x8, Kinetics-400, 4 windows of 2.1 s",
        "slowfast-r50",
        _VIDEO,
    ),
    "dis-hof": EncoderEntry(
        "flow:DisHof",
        "flow",
        306,
        "histograms of DIS optical flow and motion boundaries over 3x3",
        needs=("cv2",),
    ),
    "flow-rgb-efficientnet-lite0": EncoderEntry(
        "flow:FlowRgb",
        "flow",
        1280,
        "EfficientNet-Lite0 over colour-coded DIS flow",
        "efficientnet-lite0",
        ("cv2",),
    ),
    "yamnet": EncoderEntry(
        "yamnet:Yamnet", "audio", 1024, "YAMNet, AudioSet, a vector for each 0.49 s", "yamnet", _TFLITE
    ),
    "logmel-mfcc": EncoderEntry(
        "sound_stats:LogmelMfcc", "audio", 169, "log-mel and cepstrum statistics a second"
    ),
    "potion-8m": EncoderEntry(
        "words:Potion", "word", 256, "potion-base-8M static sentence vectors", "potion-8m", ("tokenizers",)
    ),
    "glove-50d": EncoderEntry(
        "words:Glove", "word", 50, "GloVe 6B, mean of words", "glove-50d", ("pyarrow",)
    ),
    "glove-file": EncoderEntry(
        "words:GloveFile", "word", 0, "your own .npz of words and vec, mean of words", LOCAL
    ),
    "openclip-vit-b-32-text": EncoderEntry(
        "openclip:OpenClipText", "word", 512, "class words by CLIP ViT-B/32", "openclip-vit-b-32", _CLIP
    ),
    "openclip-vit-b-16-text": EncoderEntry(
        "openclip:OpenClipText", "word", 512, "class words by CLIP ViT-B/16", "openclip-vit-b-16", _CLIP
    ),
    "openclip-vit-l-14-text": EncoderEntry(
        "openclip:OpenClipText", "word", 768, "class words by CLIP ViT-L/14", "openclip-vit-l-14", _CLIP
    ),
    "efficientdet-lite0": EncoderEntry(
        "detector:EfficientDetLite",
        "object",
        90,
        "EfficientDet-Lite0, highest score of each COCO class",
        "efficientdet-lite0",
        _TFLITE,
    ),
}

DEFAULTS = {
    "frame": "efficientnet-lite0",
    "flow": "dis-hof",
    "audio": "yamnet",
    "word": "potion-8m",
    "object": "efficientdet-lite0",
}


def entry(name: str) -> EncoderEntry:
    """The row of ``name``. Raises UsageError for an unknown one, with the nearest known name."""
    if name not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    return ENCODERS[name]


def build(name: str, *, weights: Path | None = None, device: str = "cpu") -> Encoder:
    """The encoder ``name``, its weights on this machine (fetched where needed) but not yet loaded.

    weights: the user's own file, in place of the table's sources. device: for torch networks ("cpu",
    "cuda", "cuda:1"); the rest runs on the CPU. Raises UsageError for an unknown name, or a file given to
    an encoder without weights; WeightsError where the weights cannot be had or read.
    """
    from .base import Spec

    row = entry(name)
    if missing := _missing(row):
        raise UsageError(f'Encoder {name!r} needs {", ".join(missing)}: run `pip install "fsmm[extract]"`.')
    module, _, cls = row.target.partition(":")
    spec = Spec(name, row.modality, row.dim, _located(name, row, weights), device)
    made = getattr(importlib.import_module(f".{module}", __name__), cls)(spec)
    return cast("Encoder", made)


def fetch(name: str) -> Path | None:
    """Get the weights of encoder ``name`` ahead of time; None where it has none. Raises as :func:`build`."""
    row = entry(name)
    if row.weights == LOCAL:
        raise _needs_file(name)
    return store.fetch(row.weights) if row.weights else None


def state(name: str) -> str:
    """Whether ``name`` can run here: "ready", or what it takes. Uses no network."""
    row = entry(name)
    if missing := _missing(row):
        return f"needs {', '.join(missing)}"
    if row.weights == LOCAL:
        return "needs a local file"
    return store.state(row.weights) if row.weights else "ready"


def rows() -> list[dict[str, Any]]:
    """One dict an encoder for `fsmm encoders`: name, modality, dim (None: the file decides), source,
    licence, size_mb, state, default (of its modality), about.
    """
    return [
        {
            "name": name,
            "modality": row.modality,
            "dim": row.dim or None,
            "source": _source(row),
            "licence": WEIGHTS[row.weights].licence if row.weights in WEIGHTS else "",
            "size_mb": WEIGHTS[row.weights].size_mb if row.weights in WEIGHTS else 0,
            "state": state(name),
            "default": DEFAULTS.get(row.modality) == name,
            "about": row.about,
        }
        for name, row in ENCODERS.items()
    ]


def _located(name: str, row: EncoderEntry, given: Path | None) -> store.Located | None:
    if not row.weights:
        if given is not None:
            raise UsageError(f"Encoder {name!r} is a classical descriptor: it takes no weights file.")
        return None
    if row.weights == LOCAL:
        if given is None:
            raise _needs_file(name)
        return store.own_file(name, given)
    return store.locate(row.weights, given)


def _needs_file(name: str) -> WeightsError:
    return WeightsError(f"Encoder {name!r} reads vectors of your own: give it the .npz file as its weights.")


def _missing(row: EncoderEntry) -> list[str]:
    return [module for module in row.needs if find_spec(module) is None]


def _source(row: EncoderEntry) -> str:
    if not row.weights:
        return "none needed"
    if row.weights == LOCAL:
        return "local file"
    weights = WEIGHTS[row.weights]
    if weights.hub:
        return f"local file, or {weights.hub.library} hub {weights.hub.tag}"
    assert weights.archive is not None
    return f"local file, or package archive {weights.archive.package} {weights.archive.version}"
