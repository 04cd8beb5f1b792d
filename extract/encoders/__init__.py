"""The table of encoders maps names to classes and imports nothing heavy to list them.

A new encoder is a class in a file of its family, one row of this table, and a row of ``extract/weights/table.py``
if it has weights. Other packages add rows of their own by entry points of the group ``fsmm.encoders``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...errors import UsageError, WeightsError, install_hint, unknown
from ...machine.plugins import rows_of
from ..weights import store
from ..weights.table import WEIGHTS

if TYPE_CHECKING:
    from ..contract import Encoder


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder of the table, described without importing it."""

    target: str
    """The class, as "module:Class" in this package or "package.module:Class" in another."""
    modality: str
    """The modality of its streams."""
    dim: int
    """The width of a feature vector; 0 if the user's file or data decides it."""
    about: str
    """The description of the encoder, in one line."""
    weights: str = ""
    """The encoder's row of WEIGHTS; "" if it needs none, "local" if only the user can give a file."""
    needs: tuple[str, ...] = ()
    """The modules that must be installed."""
    package: str = ""
    """A package that must be installed and that no extra brings, since it takes the place of one that they do."""

    def load(self) -> type[Any]:
        """The encoder's class."""
        module, _, name = self.target.partition(":")
        inside = "." not in module
        found = importlib.import_module(f".{module}" if inside else module, __name__ if inside else None)
        cls: type[Any] = getattr(found, name)
        return cls


LOCAL = "local"
GROUP = "fsmm.encoders"
_TFLITE, _CLIP, _VIDEO = (
    ("ai_edge_litert", "flatbuffers"),
    ("open_clip", "torchvision"),
    ("pytorchvideo", "torchvision"),
)
_EXTRAS = {  # what brings each module; the others come with "extract"
    **dict.fromkeys(("open_clip", "torchvision", "pytorchvideo", "pyarrow", "timm"), "encoders"),
    **dict.fromkeys(("transformers", "sentence_transformers"), "hub"),
}

ENCODERS: dict[str, EncoderEntry] = {
    "efficientnet-lite0": EncoderEntry(
        target="efficientnet:EfficientNetLite",
        modality="frame",
        dim=1280,
        about="EfficientNet-Lite0, ImageNet",
        weights="efficientnet-lite0",
    ),
    "efficientnet-lite2": EncoderEntry(
        target="efficientnet:EfficientNetLite",
        modality="frame",
        dim=1280,
        about="EfficientNet-Lite2 at 260 px, ImageNet",
        weights="efficientnet-lite2",
    ),
    "efficientnet-lite0-int8": EncoderEntry(
        target="efficientnet:EfficientNetLiteInt8",
        modality="frame",
        dim=1280,
        about="EfficientNet-Lite0 in int8: fast on a CPU",
        weights="efficientnet-lite0-int8",
        needs=_TFLITE,
    ),
    "i3d-rgb": EncoderEntry(
        target="i3d:I3dRgb",
        modality="frame",
        dim=1024,
        about="I3D over 32 frames, Kinetics-400, 4 steps in time",
        weights="i3d-rgb",
    ),
    "openclip-vit-b-32": EncoderEntry(
        target="openclip:OpenClipFrame",
        modality="frame",
        dim=512,
        about="CLIP ViT-B/32, LAION-2B",
        weights="openclip-vit-b-32",
        needs=_CLIP,
    ),
    "openclip-vit-b-16": EncoderEntry(
        target="openclip:OpenClipFrame",
        modality="frame",
        dim=512,
        about="CLIP ViT-B/16, LAION-2B",
        weights="openclip-vit-b-16",
        needs=_CLIP,
    ),
    "openclip-vit-l-14": EncoderEntry(
        target="openclip:OpenClipFrame",
        modality="frame",
        dim=768,
        about="CLIP ViT-L/14, LAION-2B",
        weights="openclip-vit-l-14",
        needs=_CLIP,
    ),
    "x3d-s": EncoderEntry(
        target="video3d:Video3d",
        modality="frame",
        dim=192,
        about="X3D-S, Kinetics-400, 4 windows of 2.6 s",
        weights="x3d-s",
        needs=_VIDEO,
    ),
    "slowfast-r50": EncoderEntry(
        target="video3d:Video3d",
        modality="frame",
        dim=2304,
        about="SlowFast R50 8x8, Kinetics-400, 4 windows of 2.1 s",
        weights="slowfast-r50",
        needs=_VIDEO,
    ),
    "dis-hof": EncoderEntry(
        "flow:DisHof",
        "flow",
        306,
        "histograms of DIS optical flow and motion boundaries over 3x3",
        needs=("cv2",),
    ),
    "tvl1-hof": EncoderEntry(
        "flow:TvL1Hof",
        "flow",
        306,
        "the same histograms of TV-L1 flow, by OpenCV's contributed modules",
        needs=("cv2",),
        package="opencv-contrib-python-headless",
    ),
    "raft-hof": EncoderEntry(
        target="flow_raft:RaftHof",
        modality="flow",
        dim=306,
        about="the same histograms of RAFT's flow (small), for a GPU",
        weights="raft-hof",
        needs=("cv2", "torchvision"),
    ),
    "i3d-flow": EncoderEntry(
        target="i3d_flow:I3dFlow",
        modality="flow",
        dim=1024,
        about="I3D over 32 fields of DIS flow, weights from your own file, 4 steps in time",
        weights=LOCAL,
        needs=("cv2",),
    ),
    "flow-rgb-efficientnet-lite0": EncoderEntry(
        target="flow:FlowRgb",
        modality="flow",
        dim=1280,
        about="EfficientNet-Lite0 over colour-coded DIS flow",
        weights="efficientnet-lite0",
        needs=("cv2",),
    ),
    "yamnet": EncoderEntry(
        target="yamnet:Yamnet",
        modality="audio",
        dim=1024,
        about="YAMNet, AudioSet, a vector for each 0.49 s",
        weights="yamnet",
        needs=_TFLITE,
    ),
    "vggish": EncoderEntry(
        target="vggish:Vggish",
        modality="audio",
        dim=128,
        about="VGGish, a vector for each 0.96 s, weights from your own file",
        weights=LOCAL,
    ),
    "logmel-mfcc": EncoderEntry(
        "sound_stats:LogmelMfcc", "audio", 169, "log-mel and cepstrum statistics a second"
    ),
    "potion-8m": EncoderEntry(
        target="words:Potion",
        modality="word",
        dim=256,
        about="potion-base-8M static sentence vectors",
        weights="potion-8m",
        needs=("tokenizers",),
    ),
    "glove-50d": EncoderEntry(
        target="words:Glove",
        modality="word",
        dim=50,
        about="GloVe 6B, mean of words",
        weights="glove-50d",
        needs=("pyarrow",),
    ),
    "glove-file": EncoderEntry(
        target="words:GloveFile",
        modality="word",
        dim=0,
        about="your own .npz of words and vec, mean of words",
        weights=LOCAL,
    ),
    "openclip-vit-b-32-text": EncoderEntry(
        target="openclip:OpenClipText",
        modality="word",
        dim=512,
        about="class words by CLIP ViT-B/32",
        weights="openclip-vit-b-32",
        needs=_CLIP,
    ),
    "openclip-vit-b-16-text": EncoderEntry(
        target="openclip:OpenClipText",
        modality="word",
        dim=512,
        about="class words by CLIP ViT-B/16",
        weights="openclip-vit-b-16",
        needs=_CLIP,
    ),
    "openclip-vit-l-14-text": EncoderEntry(
        target="openclip:OpenClipText",
        modality="word",
        dim=768,
        about="class words by CLIP ViT-L/14",
        weights="openclip-vit-l-14",
        needs=_CLIP,
    ),
    "window-stats": EncoderEntry(
        "sensor:WindowStats", "sensor", 0, "time and frequency features of a sensor's windows"
    ),
    "depth-window-stats": EncoderEntry(
        "sensor:DepthWindowStats", "depth", 0, "the same features of the blocks of depth maps"
    ),
    "skeleton-window-stats": EncoderEntry(
        "sensor:SkeletonWindowStats",
        "skeleton",
        0,
        "the same features of a skeleton's coordinates",
    ),
    "efficientdet-lite0": EncoderEntry(
        target="detector:EfficientDetLite",
        modality="object",
        dim=90,
        about="EfficientDet-Lite0, highest score of each COCO class",
        weights="efficientdet-lite0",
        needs=_TFLITE,
    ),
    "picture-hash": EncoderEntry(
        target="picture_hash:PictureHash",
        modality="hash",
        dim=912,
        about="coarse light and colour of frames, for cache duplicates",
    ),
    "efficientnet-lite0-int8-scores": EncoderEntry(
        target="scores:EfficientNetScores",
        modality="score",
        dim=1000,
        about="probabilities of ImageNet's classes, for cache overlap",
        weights="efficientnet-lite0-int8",
        needs=_TFLITE,
    ),
    "i3d-rgb-scores": EncoderEntry(
        target="scores:I3dScores",
        modality="score",
        dim=400,
        about="probabilities of Kinetics-400's classes, for cache overlap",
        weights="i3d-rgb",
    ),
    "yamnet-scores": EncoderEntry(
        target="scores:YamnetScores",
        modality="score",
        dim=521,
        about="probabilities of AudioSet's classes, for cache overlap",
        weights="yamnet",
        needs=_TFLITE,
    ),
}

DEFAULTS = {
    "frame": "efficientnet-lite0",
    "flow": "dis-hof",
    "audio": "yamnet",
    "word": "potion-8m",
    "object": "efficientdet-lite0",
    "sensor": "window-stats",
    "skeleton": "skeleton-window-stats",
    "depth": "depth-window-stats",
}


@cache
def encoders() -> dict[str, EncoderEntry]:
    """All encoders by name: built-in ones, then those of other packages. Raises FsmmError for an unusable row."""
    return {**ENCODERS, **rows_of(GROUP, EncoderEntry, ENCODERS)}


def entry(name: str) -> EncoderEntry:
    """The row of ``name``. Raises UsageError for an unknown name, with the nearest known one."""
    if name not in encoders():
        raise unknown("encoder", name, encoders())
    return encoders()[name]


def build(
    name: str, *, weights: Path | None = None, device: str = "cpu", precision: str = "float32"
) -> Encoder:
    """The encoder ``name``, with its weights on this machine (fetched if needed) but not yet loaded.

    weights: the user's own file, in place of the table's sources. device: the device of torch networks ("cpu",
    "cuda", "cuda:1"), and precision their arithmetic; other encoders run on the CPU. Raises UsageError for an unknown
    name, or for a file given to an encoder without weights; WeightsError if the weights cannot be obtained or read.
    """
    from .base import Spec

    row = entry(name)
    if missing := _missing(row):
        hint = install_hint(*extras_of(missing)) if missing != [row.package] else _exchange(row.package)
        raise UsageError(f"Encoder {name!r} needs {', '.join(missing)}: {hint}.")
    spec = Spec(
        name=name,
        modality=row.modality,
        dim=row.dim,
        weights=_located(name, row, weights),
        device=device,
        precision=precision,
    )
    return cast("Encoder", row.load()(spec))


def fetch(name: str) -> Path | None:
    """Fetch the weights of encoder ``name`` ahead of time and return their path; None if it has no weights.

    name: a name of the table, a reference to a model such as "openclip:ViT-B-32/laion2b_s34b_b79k", or the name of data
    of the table of weights that no encoder reads, such as "warriner-affect".

    Raises UsageError for an unknown name, WeightsError if the weights cannot be obtained or read.
    """
    from .references import Reference, is_reference

    if name.startswith("tuned:"):
        raise UsageError(
            f"Encoder {name!r} is a tuned one, whose weights lie in its folder; nothing is fetched."
        )
    if is_reference(name):
        return Reference.parse("frame", name).fetch()
    if name in WEIGHTS and WEIGHTS[name].is_data:
        return store.fetch(name)
    row = entry(name)
    if row.weights == LOCAL:
        raise _needs_file(name)
    return store.fetch(row.weights) if row.weights else None


def state(name: str) -> str:
    """Whether ``name`` can run on this machine: "ready", or what it still needs. No network is used."""
    row = entry(name)
    if missing := _missing(row):
        return f"needs {', '.join(missing)}"
    if row.weights == LOCAL:
        return "needs a local file"
    return store.state(row.weights) if row.weights else "ready"


def rows() -> list[dict[str, Any]]:
    """The rows of `fsmm encoders`, one dict an encoder.

    The keys are name, modality, dim (None: the file decides), source, licence, size_mb, state, default (whether it
    is its modality's default) and about.
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
        for name, row in encoders().items()
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
    return WeightsError(
        f"Encoder {name!r} has no weights but yours: give it the file, by `--weights {name}=FILE`."
    )


def extras_of(modules: Iterable[str]) -> list[str]:
    """The extras of fsmm that bring these modules.

    >>> extras_of(["av", "pyarrow"])
    ['encoders', 'extract']
    """
    return sorted({_EXTRAS.get(module, "extract") for module in modules})


def _missing(row: EncoderEntry) -> list[str]:
    missing = [module for module in row.needs if find_spec(module) is None]
    if row.package and not missing and not _is_installed(row.package):
        return [row.package]
    return missing


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _exchange(package: str) -> str:
    return f"run `pip uninstall opencv-python-headless`, then `pip install {package}`"


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
