"""Makes the features of docs/results/utd-mhad.md of the arrays of UTD-MHAD: eight segments a clip, three modalities.

    python scripts/utd_segments.py utd_mhad.npz utd_segments.npz
    fsmm cache import docs/examples/utd-segments.json --source utd=utd_segments.npz --source glove=VECTORS.npz

The first file is what docs/examples/utd-mhad.json imports: concatenated series of the inertial sensor and of 20 joints,
and 12 depth maps a clip. A segment of a series becomes the mean and the spread of each axis (joints relative to the
first one); a depth map becomes the means of 4 x 4 blocks, less the clip's mean map. Each feature is then brought to
mean 0 and spread 1 over all clips, which are unlabelled statistics of the whole data set.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

SEGMENTS = 8
BLOCK = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    with np.load(given.source, allow_pickle=False) as arrays:
        made = features(arrays)
    np.savez_compressed(given.target, **made)


def features(arrays: np.lib.npyio.NpzFile) -> dict[str, np.ndarray]:
    """The arrays of the target file, by name."""
    joints = arrays["skeleton"].astype(np.float32)
    joints = (joints - joints[:, :1]).reshape(len(joints), -1)
    depth = arrays["depth"].astype(np.float32)
    clips, maps, height, width = depth.shape
    blocks = depth.reshape(clips, maps, height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((3, 5))
    blocks = blocks.reshape(clips, maps, -1)
    return {
        "id": arrays["id"],
        "action": arrays["action"].astype(np.int64),
        "class_names": arrays["class_names"],
        "subject": arrays["subject"].astype(np.int64),
        "inertial": standard(segments(arrays["inertial"].astype(np.float32), arrays["inertial_length"])),
        "skeleton": standard(segments(joints, arrays["skeleton_length"])),
        "depth": standard(blocks - blocks.mean(1, keepdims=True)),
    }


def segments(series: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The mean and the spread of every axis in each segment of each clip, [n, SEGMENTS, 2 D].

    series: the steps of all clips one after another [sum of lengths, D].
    """
    made = []
    for clip in np.split(series, np.cumsum(lengths)[:-1]):
        edges = np.linspace(0, len(clip), SEGMENTS + 1).round().astype(int)
        parts = [clip[a : max(b, a + 1)] for a, b in itertools.pairwise(edges)]
        made.append(np.stack([np.concatenate([part.mean(0), part.std(0)]) for part in parts]))
    return np.stack(made)


def standard(x: np.ndarray) -> np.ndarray:
    """Features [n, T, D] with mean 0 and spread 1 over clips and steps."""
    rows = x.reshape(-1, x.shape[-1])
    return ((x - rows.mean(0)) / (rows.std(0) + 1e-3)).astype(np.float32)


if __name__ == "__main__":
    main()
