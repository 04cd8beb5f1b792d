"""Counter-based random numbers: each is a function of (key, episode, slot), so any episodes can be drawn alone.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) used twice: an episode's state is the mix of the key
plus the episode's number times the golden-ratio increment, and a slot's value is the mix of that state plus the slot's
number times the same increment.
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
    """The state of each episode, uint64 [B]."""
    return mix((episode.astype(np.uint64) + np.uint64(1)) * _GOLDEN + key)


def bits(state: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Random uint64 numbers of the broadcast shape of ``state`` and ``slot``."""
    return mix((slot.astype(np.uint64) + np.uint64(1)) * _GOLDEN + state)


def words(key: np.uint64, episode: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` random 32-bit words of each episode, as uint64 [B, count] (two from each 64-bit value).

    Episode 7 has the same numbers alone and in a batch:

    >>> purpose = key(0, "classes")
    >>> alone, batch = words(purpose, np.array([7]), 4), words(purpose, np.arange(10), 4)
    >>> bool((alone[0] == batch[7]).all())
    True
    """
    pairs = bits(states(key, episode)[:, None], np.arange((count + 1) // 2, dtype=np.uint64)[None])
    out = np.empty((len(episode), 2 * pairs.shape[1]), np.uint64)
    out[:, 0::2] = pairs & np.uint64(0xFFFFFFFF)
    out[:, 1::2] = pairs >> np.uint64(32)
    return out[:, :count]


def below(word: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Random int32 in [0, bound) from 32-bit words by multiply-shift; the bias is below bound / 2**32."""
    return ((word * np.asarray(bound, np.uint64)) >> np.uint64(32)).astype(np.int32)


def uniform(word: np.ndarray) -> np.ndarray:
    """Random float64 in (0, 1) from 32-bit words."""
    return (word.astype(np.float64) + 0.5) * 2.0**-32


def subset(word: np.ndarray, population: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """A uniformly random subset of {0 .. population-1}, by Floyd's method, for every leading index at once.

    word: 32-bit words [..., M]. population: int [...]. size: int [...], the numbers of elements to draw (at most M and
    at most the population); None draws M. Returns int32 [..., M] without repetition, -1 beyond ``size``.
    The set is uniform; the order inside it is not.

    >>> drawn = subset(words(key(0, "support"), np.arange(3), 5), np.full(3, 20))
    >>> drawn.shape, [len(set(row)) for row in drawn.tolist()], bool((drawn < 20).all())
    ((3, 5), [5, 5, 5], True)
    """
    lead, slots = word.shape[:-1], word.shape[-1]
    chosen = np.broadcast_to(slots if size is None else size, lead).reshape(-1)
    lowest = (np.broadcast_to(population, lead).reshape(-1) - chosen).astype(np.int32)
    # With the slots as first axis, every step below runs along contiguous memory over all leading indices.
    top = lowest + np.arange(slots, dtype=np.int32)[:, None]
    drawn = below(np.ascontiguousarray(word.reshape(len(chosen), slots).T), (top + 1).astype(np.uint64))
    for j in range(1, slots):
        taken = (drawn[:j] == drawn[j]).any(0)
        np.copyto(drawn[j], top[j], where=taken)
    if size is not None:
        drawn[np.arange(slots)[:, None] >= chosen] = -1
    return np.ascontiguousarray(drawn.T).reshape(word.shape)


def outside(drawn: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Re-index draws from {0 .. n-k-1} to the elements of {0 .. n-1} that are not among the k elements of ``taken``.

    drawn: int32 [..., M], which is overwritten and returned; its -1 stay -1. taken: int32 [..., k] without repetition.

    >>> outside(np.array([0, 1, 2, -1], np.int32), np.array([1, 3], np.int32)).tolist()
    [0, 2, 4, -1]
    """
    for element in np.moveaxis(np.sort(taken, axis=-1), -1, 0):
        drawn += drawn >= element[..., None]
    return drawn


def order(word: np.ndarray, last: np.ndarray | None = None) -> np.ndarray:
    """A random permutation, int64 [..., M], from 32-bit words [..., M]; slots where ``last`` is true go to the end.

    A slot's number is packed below its random bits, so that one sort of plain integers orders the slots, which is much
    faster than an argsort. At least 24 random bits remain for each slot; ties fall in index order.
    """
    slots = word.shape[-1]
    width = slots.bit_length()
    whole = np.uint32 if width <= 7 else np.uint64
    key = word.astype(whole)
    # The top bit belongs to ``last``, so 31 random bits remain, less those that a 32-bit key gives to the number.
    key >>= whole(1)
    key = key & ~whole((1 << width) - 1) if whole is np.uint32 else key << whole(width)
    key |= np.arange(slots, dtype=whole)
    if last is not None:
        key[last] |= whole(1 << 31) if whole is np.uint32 else whole(1 << 63)
    key.sort(axis=-1)
    return (key & whole((1 << width) - 1)).astype(np.int64)
