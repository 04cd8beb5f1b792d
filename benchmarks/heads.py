"""Every head in batches beside the same head one task at a time, in evaluation and in training, and beside easyfsl.

The tasks are 5-way 1-shot 15-query over 20 synthetic classes of 60 clips, with D = 512 (T = 8 for heads that read time;
two modalities for heads that need two). A head that scores pairs of clips once for a whole test is timed over a test of
10,000 episodes, others over as many as fill a second. Each method is measured in a fresh process, whose peak memory
holds torch too (about 250 MB). The command is ``python -m benchmarks.heads [METHOD[:KEY=VALUE,...] ...]``, where keys
are settings of the method.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from fsmm.cache.bank import FeatureBank
from fsmm.cache.schema import StreamName
from fsmm.episodes.batch import Episodes
from fsmm.episodes.draw import sampler_for
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import ClipTrainedHead, Head
from fsmm.heads.registry import METHODS, find
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.pairs import FromPairs
from fsmm.heads.scoring.plan import best_shortcut
from fsmm.machine.cores import half_of_the_cores
from fsmm.machine.memory import keep_freed_memory
from fsmm.runs.evaluate import FORK_FROM, evaluate
from fsmm.runs.tasks import training_protocol
from fsmm.runs.train import make_optimiser

from .episodes import CLASSES, STEPS, synthetic_bank
from .table import Row, print_rows

CLIPS, WORDS = 60, 64
TASK = Protocol(n_way=5, k_shot=1, n_query=15)
EPISODES = 10_000
SECONDS = 0.8  # about the duration of each measurement
# Each method has easyfsl's class of it and the number of steps that both sides then take.
EASYFSL = {
    "ptmap": ("PTMAP", {"fine_tuning_steps": 20}, {"iterations": "20"}),
    "tim": ("TIM", {"fine_tuning_steps": 50}, {"iterations": "50", "solver": "gd"}),
    "laplacianshot": ("LaplacianShot", {}, {}),
    "bdcspn": ("BDCSPN", {}, {}),
    "finetune": ("Finetune", {"fine_tuning_steps": 100}, {}),
}  # fmt: skip


def named(text: str) -> tuple[str, dict[str, str]]:
    """The method and the settings that METHOD:KEY=VALUE,... names.

    >>> named("chamfer:matching=mean,scale=1")
    ('chamfer', {'matching': 'mean', 'scale': '1'})
    """
    method, _, settings = text.partition(":")
    return method, dict(pair.split("=", 1) for pair in settings.split(",") if pair)


def bank_for(method: str) -> FeatureBank:
    """The synthetic bank with the streams that a method reads, and random class words."""
    kind = find(method)[0]
    bank = synthetic_bank(STEPS if kind.reads_time else 1, clips=CLIPS)
    bank = replace(bank, words=torch.randn(CLASSES, WORDS, generator=torch.Generator().manual_seed(1)))
    if kind.modalities != "two":
        return bank
    return replace(
        bank,
        tables={"frame": bank.tables["frame"], "audio": bank.tables["frame"]},
        streams={m: StreamName(m, "synthetic") for m in ("frame", "audio")},
    )


def rate(
    work: Callable[[int], object], seconds: float = SECONDS, most: int = 10_000, least: int = 1
) -> float:
    """Units a second of ``work(n)``, n chosen so that it takes about ``seconds``; the better of two runs."""
    n, spent = least, 0.0
    while spent < seconds / 5 and n < most:
        n = min(most, n * 4)
        started = time.perf_counter()
        work(n)
        spent = time.perf_counter() - started
    n = int(min(most, max(least, n * seconds / max(spent, 1e-9))))
    times = []
    for _ in range(2):
        started = time.perf_counter()
        work(n)
        times.append(time.perf_counter() - started)
    return n / min(times)


def standard_test(head: Head, bank: FeatureBank, protocol: Protocol, seconds: float = SECONDS) -> float:
    """Episodes a second of a standard test.

    The test has 10,000 episodes if pairs of clips are scored once for all of them; otherwise it is just long enough to
    be prepared and shared as longer tests are.
    """
    long = EpisodeTest(bank=bank, protocol=protocol, episodes=EPISODES)
    n = EPISODES if isinstance(best_shortcut(head, long), FromPairs) else FORK_FROM
    started = time.perf_counter()
    evaluate(head, bank, protocol, n)
    spent = time.perf_counter() - started
    return (
        n / spent if spent > seconds else rate(lambda m: evaluate(head, bank, protocol, m), seconds, least=n)
    )


def one_by_one(
    head: Callable[[Episodes], Tensor], bank: FeatureBank, protocol: Protocol = TASK
) -> Callable[[int], None]:
    """A function that evaluates n tasks as a short script does: one task is gathered, scored and counted at a time."""

    @torch.no_grad()
    def work(n: int) -> None:
        (index,) = Sampler(bank, protocol).batches(0, n, n)
        for i in range(n):
            one = index[i : i + 1]
            predicted = head(materialise(bank, one, protocol)).argmax(-1)
            (predicted == one.query_label).float().mean().item()

    return work


def trained(head: Head, bank: FeatureBank, tasks: int) -> Callable[[int], None]:
    """A function that takes n optimiser steps of the recipe's tasks each, ``tasks`` of them in one batch."""
    recipe = head.recipe
    task = training_protocol(TASK, recipe, bank, 0)
    sampler, optimiser = sampler_for(bank, task), make_optimiser(head, recipe)

    def work(n: int) -> None:
        head.train()
        for step in range(n):
            for start in range(step * recipe.tasks, (step + 1) * recipe.tasks, tasks):
                numbers = np.arange(start, start + tasks, dtype=np.int64)
                ways, shots = sampler.shapes(numbers)
                index = sampler.draw(numbers, int(ways[0]), int(shots[0]))
                head.loss(materialise(bank, index, task)).total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    return work


def measure(text: str) -> dict[str, float]:
    """Rates of one method (see ``named``), batched and one task at a time, and this process's peak memory in MB."""
    keep_freed_memory()  # Both sides of the comparison profit from this, not only ours.
    method, settings = named(text)
    bank = bank_for(method)
    torch.manual_seed(0)
    head = build_head(method, inputs_of(bank, base_classes=CLASSES), settings)
    head.fit_base(bank)
    head.eval()
    found = {"one": rate(one_by_one(head, bank)), "batched": standard_test(head, bank, TASK)}
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if any(p.requires_grad for p in head.parameters()) and not isinstance(head, ClipTrainedHead):
        tasks = head.recipe.tasks
        with half_of_the_cores(unless=head.recipe.every_core):
            found["train_batched"] = tasks * rate(trained(head, bank, tasks), most=50)
            found["train_one"] = tasks * rate(trained(head, bank, 1), most=50)
    return found


def measure_easyfsl(method: str) -> dict[str, float]:
    """Episodes a second of easyfsl's evaluate() with its own head, and of ours on the same features and steps."""
    from fsmm.extract.weights.torchvision_care import ensure_torchvision

    ensure_torchvision()
    import easyfsl.methods
    from easyfsl.datasets import FeaturesDataset
    from easyfsl.samplers import TaskSampler
    from easyfsl.utils import evaluate as easy_evaluate

    name, theirs, own = EASYFSL[method]
    bank = bank_for(method)
    x = bank.tables["frame"].gather(torch.arange(len(bank))).pooled()
    data = FeaturesDataset(bank.label.tolist(), x, bank.class_names)
    model = getattr(easyfsl.methods, name)(torch.nn.Identity(), **theirs)

    def work(n: int) -> None:
        # easyfsl 1.5 passes an argument that the newest torch's Sampler no longer takes.
        with mock.patch.object(torch.utils.data.Sampler, "__init__", return_value=None):
            sampler = TaskSampler(data, n_way=5, n_shot=1, n_query=15, n_tasks=n)
        loader = torch.utils.data.DataLoader(
            data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn
        )
        easy_evaluate(model, loader, device="cpu", use_tqdm=False)

    head = build_head(method, inputs_of(bank), own)
    head.fit_base(bank)
    return {"easyfsl": rate(work), "ours": rate(lambda n: evaluate(head, bank, TASK, n))}


def rows_of(method: str) -> list[Row]:
    """A method's rows, measured in a process of its own."""
    found = alone("measure", method)
    rows = [
        Row(f"{method}, one task at a time", found["one"]),
        Row(f"{method}, ours", found["batched"], against="as fast", ratio=found["batched"] / found["one"],
            memory_mb=found["memory"]),
    ]  # fmt: skip
    if "train_one" in found:
        speedup = found["train_batched"] / found["train_one"]
        rows.append(
            Row(
                name=f"{method}, training",
                rate=found["train_batched"],
                unit="tasks/s",
                against="one at a time",
                ratio=speedup,
            )
        )
    return rows


def rows_of_easyfsl(method: str) -> list[Row]:
    """The rows of our head beside easyfsl's; a single row says so if easyfsl is not installed."""
    if find_spec("easyfsl") is None:
        return [Row(f"{method}, easyfsl (did not install)", float("nan"))]
    found = alone("measure_easyfsl", method)
    return [
        Row(f"{method}, easyfsl", found["easyfsl"]),
        Row(
            f"{method}, ours, as many steps",
            found["ours"],
            against="easyfsl",
            ratio=found["ours"] / found["easyfsl"],
        ),
    ]


def alone(what: str, method: str) -> dict[str, float]:
    """The result of ``measure`` or ``measure_easyfsl`` in a fresh process."""
    command = [sys.executable, "-m", "fsmm.benchmarks.heads", "--child", what, method]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(methods: list[str] | None = None) -> list[Row]:
    """All rows of these methods, as ``named`` reads them (None: of every method)."""
    names = methods or [name for name in METHODS if find(name)[0].words != "needed"]
    rows = [row for name in names for row in rows_of(name)]
    return rows + [row for name in names if name in EASYFSL for row in rows_of_easyfsl(name)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps({"measure": measure, "measure_easyfsl": measure_easyfsl}[sys.argv[2]](sys.argv[3])))
    else:
        print_rows("Heads: 5-way 1-shot 15-query, D = 512, 20 classes x 60 clips", run(sys.argv[1:]))
