"""Counter-based random numbers: a pure function of (key, episode, slot), so any batch of episodes can be drawn alone.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) used twice: an episode's own state is the mix of the
key plus its number times the golden-ratio increment, and a slot's value is the mix of that state plus the slot's.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


def key(seed: int, purpose: str) -> np.uint64:
    """The key of one purpose (drawing classes, dropping audio ...) under a seed; purposes are independent."""
    digest = hashlib.blake2b(f"fsmm/{seed}/{purpose}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, elementwise on uint64; ``x`` is overwritten and returned."""
    x ^= x >> np.uint64(30)
    x *= _M1
    x ^= x >> np.uint64(27)
    x *= _M2
    x ^= x >> np.uint64(31)
    return x


def states(key: np.uint64, episode: np.ndarray) -> np.ndarray:
    """One state an episode, uint64 [B]."""
    return mix((episode.astype(np.uint64) + np.uint64(1)) * _GOLDEN + key)


def bits(state: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Random uint64 of the broadcast shape of ``state`` and ``slot``."""
    return mix((slot.astype(np.uint64) + np.uint64(1)) * _GOLDEN + state)


def words(key: np.uint64, episode: np.ndarray, count: int) -> np.ndarray:
    """``count`` random uint32 an episode, as uint64 [B, count] (two from each 64-bit value)."""
    pairs = bits(states(key, episode)[:, None], np.arange((count + 1) // 2, dtype=np.uint64)[None])
    out = np.empty((len(episode), 2 * pairs.shape[1]), np.uint64)
    out[:, 0::2] = pairs & np.uint64(0xFFFFFFFF)
    out[:, 1::2] = pairs >> np.uint64(32)
    return out[:, :count]


def below(word: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Integers in [0, bound) from 32-bit words by multiply-shift; the bias is below bound / 2**32. int32."""
    return ((word * np.asarray(bound, np.uint64)) >> np.uint64(32)).astype(np.int32)


def uniform(word: np.ndarray) -> np.ndarray:
    """Floats in (0, 1) from 32-bit words."""
    return (word.astype(np.float64) + 0.5) * 2.0**-32


def subset(word: np.ndarray, population: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """A uniformly random subset of {0 .. population-1}, by Floyd's method, for every leading index at once.

    word: 32-bit words [..., M]. population: int [...]. size: int [...], how many to draw (at most M and at most the
    population); M when None. Returns int32 [..., M] without repetition, -1 beyond ``size``.
    The set is uniform; the order inside it is not.
    """
    slots = word.shape[-1]
    lowest = (np.asarray(population) - (slots if size is None else size)).astype(np.int32)
    longest = slots if size is None else int(size.max(initial=0))
    out = np.full(word.shape, -1, np.int32)
    for j in range(longest):
        top = lowest + np.int32(j)
        drawn = below(word[..., j], (top + 1).astype(np.uint64))
        if j:
            taken = (out[..., :j] == drawn[..., None]).any(-1)
            np.copyto(drawn, top, where=taken)
        if size is not None:
            np.copyto(drawn, -1, where=size <= j)
        out[..., j] = drawn
    return out


def outside(drawn: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Re-index draws from {0 .. n-k-1} to the elements of {0 .. n-1} that are not in ``taken`` (k of them).

    drawn: int32 [..., M], overwritten and returned; taken: int32 [..., k] without repetition. -1 stays -1.
    """
    for element in np.moveaxis(np.sort(taken, axis=-1), -1, 0):
        drawn += drawn >= element[..., None]
    return drawn


def order(word: np.ndarray) -> np.ndarray:
    """A random permutation [..., M] from 32-bit words [..., M] (ties, of chance M**2 / 2**33, fall in index order)."""
    return np.argsort(word, axis=-1, kind="stable")
