"""A new head in one file: written, judged beside ProtoNet on the same tasks, and seen to pass two laws.

    python examples/new_head.py

The data is made on the spot: classes of points with a few outliers among them, which a mean follows and a median does
not. To give the head a name on the command line, see "Your first head in twenty minutes" in CONTRIBUTING.md, or
examples/third_party for a package of your own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsmm.cache.bank import FeatureBank
from fsmm.cache.schema import StreamName
from fsmm.cache.table import TensorTable
from fsmm.episodes.batch import Episodes
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head
from fsmm.heads.parts.absence import neutral
from fsmm.heads.parts.distances import squared_distances
from fsmm.heads.parts.task import pooled_task
from fsmm.heads.settings import Positive, Settings
from fsmm.runs.evaluate import evaluate
from fsmm.studies.pairs import paired


# 1. The method: settings with a docstring each, and logits.
@dataclass(frozen=True)
class MedianSettings(Settings):
    """The settings of class medians."""

    scale: Positive = 1.0
    """The factor of the distances: it sharpens posteriors and changes no decision."""


class Median(Head[MedianSettings]):
    """A class is the median of its supports; a query goes to the nearest class."""

    Settings = MedianSettings

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: minus the squared distance to each class's median."""
        task = pooled_task(episodes)  # support [B, N, K, D], query [B, Q, D]
        support = task.support.masked_fill(~task.support_present[..., None], torch.nan)
        median = support.nanmedian(2).values.nan_to_num()  # [B, N, D]
        logits = -self.settings.scale * squared_distances(task.query, median)
        return neutral(logits, task.query_present, task.class_present)


# 2. Clips to try it on: 20 classes of 40 clips with 16 numbers each, one clip in five far from its class.
def bank_with_outliers() -> FeatureBank:
    """All clips as one bank, as FeatureBank.load makes it of a cache."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(20), 40)
    x = rng.normal(size=(20, 16))[label] + 0.6 * rng.normal(size=(len(label), 16))
    x[::5] += 6 * rng.normal(size=x[::5].shape)
    length = torch.ones(len(label), dtype=torch.int64)
    return FeatureBank(
        dataset="synthetic-outliers",
        split="novel",
        label_set="class",
        class_split="default",
        streams={"frame": StreamName("frame", "synthetic")},
        tables={"frame": TensorTable(torch.tensor(x, dtype=torch.float32)[:, None], length, length > 0)},
        label=torch.from_numpy(label),
        class_names=[str(i) for i in range(20)],
        class_id=torch.arange(20),
        clip_row=np.arange(len(label)),
    )


def main() -> None:
    """Compare the head with ProtoNet, then hold it to two laws."""
    bank, protocol = bank_with_outliers(), Protocol(n_way=5, k_shot=5, n_query=15)
    inputs = inputs_of(bank)
    heads: dict[str, Head] = {
        "ProtoNet": build_head("protonet", inputs),
        "class medians": Median(inputs, MedianSettings()),
    }

    # 3. Both on the very same 2,000 tasks, so that their difference is paired.
    found = {name: evaluate(head, bank, protocol, 2000, transductive=False) for name, head in heads.items()}
    for name, result in found.items():
        print(f"{name:14s} {100 * result.mean:.1f} %")
    medians, means = found["class medians"], found["ProtoNet"]
    gap = paired(medians, means, names=("medians", "means"))
    print(
        f"medians - means: {100 * gap.difference:+.1f} points, p = {gap.clips.p:.2g} over clips of these classes"
    )

    # 4. Two of the laws that every head must keep (tests/heads/test_laws.py holds them all).
    head = heads["class medians"]
    index = next(Sampler(bank, protocol).batches(0, 4, 4))
    tasks = materialise(bank, index, protocol)
    together = head(tasks)
    one_by_one = torch.cat([head(tasks.slice(i, i + 1)) for i in range(tasks.batch)])
    assert torch.allclose(together, one_by_one, atol=1e-4), "a batch must equal its episodes one by one"
    order = torch.randperm(tasks.queries)
    tasks.query["frame"] = tasks.query["frame"][:, order]
    assert torch.allclose(head(tasks), together[:, order], atol=1e-4), "queries must not see one another"
    print("the head keeps both laws")


if __name__ == "__main__":
    main()
