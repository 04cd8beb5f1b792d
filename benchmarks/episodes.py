"""Episodes a second of fsmm, a plain loop, easyfsl, scikit-learn, and the bounds, in one run and one process.

The tasks are 5-way 5-shot 15-query with D = 512, from 20 classes of 600 synthetic clips, and sequences of T = 8. Ratios
matter, not the figures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from fsmm.cache.bank import FeatureBank
from fsmm.cache.schema import StreamName
from fsmm.cache.table import TensorTable
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.runs.evaluate import evaluate

from .table import Row, median_seconds, print_rows

CLASSES, CLIPS, DIM, STEPS = 20, 600, 512, 8
PROTOCOL = Protocol(n_way=5, k_shot=5, n_query=15)


def synthetic_bank(steps: int, dtype: torch.dtype = torch.float32, clips: int = CLIPS) -> FeatureBank:
    """A bank in memory with Gaussian classes of unit-length features [n, steps, D]."""
    torch.manual_seed(0)
    n = CLASSES * clips
    label = torch.arange(CLASSES).repeat_interleave(clips)
    x = 0.3 * torch.randn(CLASSES, 1, DIM)[label] + torch.randn(n, steps, DIM)
    ones = torch.ones(n, dtype=torch.bool)
    table = TensorTable(torch.nn.functional.normalize(x, dim=-1).to(dtype), ones * steps, ones)
    names = [str(i) for i in range(CLASSES)]
    return FeatureBank(
        dataset="synthetic",
        split="novel",
        label_set="event",
        class_split="default",
        streams={"frame": StreamName("frame", "synthetic")},
        tables={"frame": table},
        label=label,
        class_names=names,
        class_id=torch.arange(CLASSES),
        clip_row=np.arange(n),
    )


def ours(bank: FeatureBank, method: str, episodes: int) -> float:
    """Episodes a second of fsmm's evaluate(), sampling included."""
    head = build_head(method, inputs_of(bank))
    return episodes / median_seconds(lambda: evaluate(head, bank, PROTOCOL, episodes))


def plain_loop(bank: FeatureBank, episodes: int) -> float:
    """Episodes a second of a short script that runs ProtoNet task by task: draw, gather, means, distances, accuracy."""
    x, label = bank.tables["frame"].gather(torch.arange(len(bank))).pooled(), bank.label
    rows = [torch.nonzero(label == c)[:, 0] for c in range(CLASSES)]

    def run() -> None:
        for _ in range(episodes):
            support, query = [], []
            for c in torch.randperm(CLASSES)[:5]:
                drawn = rows[c][torch.randperm(CLIPS)[:20]]
                support.append(x[drawn[:5]].mean(0))
                query.append(x[drawn[5:]])
            distance = torch.cdist(torch.cat(query), torch.stack(support))
            (distance.argmin(1) == torch.arange(5).repeat_interleave(15)).float().mean()

    return episodes / median_seconds(run, 3)


def easyfsl(bank: FeatureBank, episodes: int) -> float | None:
    """Episodes a second of easyfsl's evaluate() with its PrototypicalNetworks; None if easyfsl is not installed."""
    from fsmm.extract.weights.torchvision_care import ensure_torchvision

    try:
        ensure_torchvision()
        from easyfsl.datasets import FeaturesDataset
        from easyfsl.methods import PrototypicalNetworks
        from easyfsl.samplers import TaskSampler
        from easyfsl.utils import evaluate as easy_evaluate
    except ImportError:
        return None
    x = bank.tables["frame"].gather(torch.arange(len(bank))).pooled()
    data = FeaturesDataset(bank.label.tolist(), x, bank.class_names)
    # easyfsl 1.5 passes an argument that the newest torch's Sampler no longer takes.
    with mock.patch.object(torch.utils.data.Sampler, "__init__", return_value=None):
        sampler = TaskSampler(data, n_way=5, n_shot=5, n_query=15, n_tasks=episodes)
    loader = torch.utils.data.DataLoader(data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
    model = PrototypicalNetworks(torch.nn.Identity())
    return episodes / median_seconds(lambda: easy_evaluate(model, loader, device="cpu", use_tqdm=False), 3)


def sklearn_probe(bank: FeatureBank, episodes: int) -> tuple[float, float]:
    """Tasks a second of scikit-learn's LogisticRegression, and the share of queries on which our probe agrees."""
    from sklearn.linear_model import LogisticRegression

    from fsmm.episodes.gather import materialise

    index = next(Sampler(bank, PROTOCOL).batches(0, episodes, episodes))
    batch = materialise(bank, index, PROTOCOL)
    support, query = batch.support["frame"].pooled().numpy(), batch.query["frame"].pooled().numpy()
    label = np.arange(5).repeat(5)
    head = build_head("linear-probe", inputs_of(bank))
    predicted = head(batch).argmax(-1).numpy()
    same, started = 0.0, time.perf_counter()
    for e in range(episodes):
        model = LogisticRegression(max_iter=1000).fit(support[e].reshape(25, -1), label)
        same += float((model.predict(query[e]) == predicted[e]).mean())
    return episodes / (time.perf_counter() - started), same / episodes


def product_bound(chunk: int = 50, repeats: int = 40, dtype: torch.dtype = torch.float32) -> float:
    """Episodes a second of the batched product of queries by prototypes in the faster layout, features in place."""
    query, prototype = (torch.randn(chunk, rows, DIM).to(dtype) for rows in (75, 5))
    out = torch.empty(chunk, 75, 5, dtype=dtype)

    def run() -> None:
        for _ in range(repeats):
            torch.bmm(query, prototype.transpose(1, 2), out=out)

    return chunk * repeats / median_seconds(run, 9)


def read_bound(bank: FeatureBank) -> float:
    """Episodes a second of one read of their features (100 clips x D float32), at memory's speed over the table."""
    x: Tensor = bank.tables["frame"].gather(torch.arange(len(bank))).x
    seconds = median_seconds(lambda: x.sum(), 9)
    return x.numel() * 4 / seconds / (100 * DIM * 4 * bank.tables["frame"].steps)


def start_to_end(episodes: int) -> tuple[float, float]:
    """Seconds of ``import torch`` in a new process, and of the command line on a cache of the bank's size."""
    from fsmm.cache.catalog import Catalog, LabelSet
    from fsmm.cache.schema import Provenance
    from fsmm.cache.stream import StreamWriter

    bank = synthetic_bank(1)
    x = bank.tables["frame"].gather(torch.arange(len(bank))).x.numpy()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ids = [str(i) for i in range(len(bank))]
        labels = LabelSet(bank.class_names, bank.label.numpy(), splits={"default": np.full(CLASSES, 3)})
        Catalog("bench", ids, {"event": labels}, "event").write(root / "bench")
        with StreamWriter(root / "bench", Provenance("synthetic", "frame", DIM)) as writer:
            for i, clip in enumerate(ids):
                writer.add(clip, x[i])
        command = [
            sys.executable,
            "-m",
            "fsmm",
            "-q",
            "episode-eval",
            "--method",
            "protonet",
            "--k-shot",
            "5",
            "--episodes",
            str(episodes),
            "--cache",
            str(root),
            "--out",
            str(root / "run"),
            "--json",
        ]
        torch_alone = median_seconds(
            lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True), 3
        )
        whole = median_seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), 3)
    return torch_alone, whole


def run(episodes: int = 100_000) -> list[Row]:
    """All rows of the table; the command line is timed on 10,000 episodes."""
    pooled, sequences = synthetic_bank(1), synthetic_bank(STEPS)
    bound, read = product_bound(), read_bound(pooled)
    half_bound = product_bound(dtype=torch.bfloat16)
    rows = [Row("bound: batched product", bound), Row("bound: batched product in bfloat16", half_bound)]
    rows.append(Row("bound: one read of the features", read))
    proto = ours(pooled, "protonet", episodes)
    rows.append(
        Row("ProtoNet, ours, sampling included", proto, against="of the product bound", ratio=proto / bound)
    )
    half = ours(synthetic_bank(1, torch.bfloat16), "protonet", episodes)
    rows.append(
        Row(
            "ProtoNet, ours, bfloat16 table", half, against="of the float32 product bound", ratio=half / bound
        )
    )
    small = synthetic_bank(1, clips=60)
    gram = ours(small, "protonet", episodes)
    rows.append(
        Row("ProtoNet, ours, 20 x 60 clips", gram, against="of the product bound", ratio=gram / bound)
    )
    loop = plain_loop(pooled, 200)
    rows.append(Row("ProtoNet, plain loop", loop, against="slower than ours", ratio=proto / loop))
    easy = easyfsl(pooled, 100)
    if easy is None:
        rows.append(Row("easyfsl did not install", float("nan")))
    else:
        rows.append(Row("ProtoNet, easyfsl evaluate", easy, against="slower than ours", ratio=proto / easy))
    probe = ours(pooled, "linear-probe", 4000)
    peer, same = sklearn_probe(pooled, 100)
    rows.append(Row("linear probe, ours", probe, against="faster than scikit-learn", ratio=probe / peer))
    rows.append(Row(f"linear probe, scikit-learn ({100 * same:.2f} % of queries agree)", peer))
    rows.append(Row("nearest, ours", ours(pooled, "nearest", episodes // 5)))
    rows.append(Row("ProtoNet, T = 8 pooled once", ours(sequences.pooled(), "protonet", episodes)))
    rows.append(Row("ProtoNet, T = 8 sequences gathered", ours(sequences, "protonet", episodes // 20)))
    torch_alone, whole = start_to_end(10_000)
    rows.append(Row("`import torch` alone", torch_alone, "seconds"))
    rows.append(
        Row(
            name="10,000 ProtoNet episodes, command line",
            rate=whole,
            unit="seconds",
            against="import torch",
            ratio=whole / torch_alone,
        )
    )
    return rows


if __name__ == "__main__":
    print_rows("Episodes: 5-way 5-shot 15-query, D = 512, 20 classes x 600 clips", run())
