"""What Hypothesis draws for the cache's tests: shards of any mixture of lengths, presence, types and keys."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fsmm.cache.schema import Provenance
from fsmm.cache.shard import Shard, build_shard

DTYPES = ("float16", "float32", "float64")
keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def shards(draw: st.DrawFn) -> tuple[Shard, list[tuple[str, np.ndarray | None, dict[str, object]]]]:
    """A shard, and the rows it was built from with their features as they should come back."""
    dim = draw(st.integers(1, 5))
    dtype = draw(st.sampled_from(DTYPES))
    ids = draw(st.lists(keys, unique=True, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows: list[tuple[str, np.ndarray | None, dict[str, object]]] = []
    for clip in ids:
        steps = draw(st.integers(0, 4))  # 0: absent
        x = rng.normal(size=(steps, dim)).astype(dtype) if steps else None
        rows.append((clip, x, {"duration": float(rng.random()), "width": int(rng.integers(1, 99))}))
    provenance = Provenance("net", "frame", dim, dtype=dtype, extra={"note": draw(keys)})
    known = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    times = [np.arange(len(x)) + 0.5 if x is not None and k else None for (_, x, _), k in zip(rows, known)]
    return build_shard("toy", provenance, rows, {"seconds": 1.5}, times), rows
