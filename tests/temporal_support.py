"""Episodes, precision checks and a synthetic dataset of order, shared by the tests of heads that read time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from tests_support import moved

from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.schema import Provenance
from fsmm.cache.stream import StreamWriter
from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.build import build_head
from fsmm.heads.head import Head, Inputs

STEPS, DIM = 5, 16


def episode(
    batch: int = 2,
    ways: int = 3,
    shots: int = 2,
    queries: int = 6,
    seed: int = 0,
    short: bool = True,
    spread: float = 0.7,
) -> Episodes:
    """Float64 episodes of Gaussian classes, a unit vector a step; lengths are 2 to STEPS, or STEPS if not ``short``."""
    chance = torch.Generator().manual_seed(seed)
    centre = torch.randn(batch, ways, STEPS, DIM, generator=chance, dtype=torch.float64)
    label = torch.randint(ways, (batch, queries), generator=chance)
    picked = centre[torch.arange(batch)[:, None], label]

    def clips(means: torch.Tensor) -> Stream:
        x = means + spread * torch.randn(means.shape, generator=chance, dtype=torch.float64)
        x = torch.nn.functional.normalize(x, dim=-1)
        shape = means.shape[:-2]
        length = torch.randint(2 if short else STEPS, STEPS + 1, shape, generator=chance)
        x = x * (torch.arange(STEPS) < length[..., None])[..., None]
        return Stream(x, torch.ones(shape, dtype=torch.bool), length)

    support = clips(centre[:, :, None].expand(-1, -1, shots, -1, -1))
    ids = torch.arange(ways).expand(batch, ways)
    return Episodes({"frame": support}, {"frame": clips(picked)}, label, ids)


def head(name: str, settings: Mapping[str, str] | None = None, seed: int = 0) -> Head:
    """The head in float64 and evaluation mode, with every weight moved so that zero-initialised paths count."""
    torch.manual_seed(seed)
    made = build_head(name, Inputs(streams={"frame": (STEPS, DIM)}), dict(settings or {})).double()
    return moved(made, 0.05).eval()


def cut(task: Episodes, side: str) -> Episodes:
    """The same task with garbage written beyond every clip's length on one side: it must not count."""
    stream = getattr(task, side)["frame"]
    garbage = 9.0 * torch.randn(
        stream.x.shape, generator=torch.Generator().manual_seed(5), dtype=stream.x.dtype
    )
    x = torch.where(stream.mask()[..., None], stream.x, garbage)
    changed = {"frame": Stream(x, stream.present, stream.length)}
    support, query = (changed if side == s else getattr(task, s) for s in ("support", "query"))
    return Episodes(support, query, task.query_label, task.class_id)


def order_kept(made: Head, task: Episodes) -> float:
    """The share of pairs of classes, among those that differ by a tenth of a query's spread, ranked alike in bfloat16.

    ``episode(batch=20)`` has 20 x 6 x 3 = 360 pairs, some 350 of which differ so clearly. bfloat16 keeps 8 bits, so
    every operation rounds by up to 1/256 of a value, and a few of these errors together can exceed a small gap. A bound
    of .97 allows ten flipped pairs, .95 seventeen and .9 thirty-five: the more layers a head has, the more it rounds.
    """
    with torch.no_grad():
        exact = made(task)
        rough = made.to(torch.bfloat16)(task.to("cpu", torch.bfloat16)).double()
    gap = exact[..., :, None] - exact[..., None, :]
    clear = gap > 0.1 * exact.std(-1)[..., None, None].clamp(min=1e-9)
    same = (rough[..., :, None] - rough[..., None, :])[clear] > 0
    return float(same.double().mean())


def order_cache(root: Path, clips: int = 16, seed: int = 0) -> Path:
    """A dataset "order" whose classes of a split are the six orders of the same three ingredients.

    Splits have their own ingredients. A clip shows each ingredient for one to three steps, so that lengths differ; the
    mean over time says nothing of the class.
    """
    rng = np.random.default_rng(seed)
    ingredients = rng.normal(size=(4, 3, DIM))
    classes = [(group, order) for group in range(4) for order in permutations(range(3))]
    label = np.repeat(np.arange(len(classes)), clips)
    codes = np.array([1, 1, 2, 3])[[group for group, _ in classes]]
    ids = [f"clip{i}" for i in range(len(label))]
    names = [f"{group}:{order}" for group, order in classes]
    labels = LabelSet(names, label, splits={"default": codes})
    Catalog("order", ids, {"event": labels}, "event", attrs={"synthetic": "true"}).write(root / "order")
    about = Provenance("net", "frame", DIM, dtype="float32")
    with StreamWriter(root / "order", about) as writer:
        for clip, c in zip(ids, label):
            group, order = classes[c]
            steps = np.repeat(np.array(order), rng.integers(1, 4, 3))
            x = ingredients[group, steps] + 0.6 * rng.normal(size=(len(steps), DIM))
            writer.add(clip, x.astype(np.float32), {"duration": 1.0})
    return root
