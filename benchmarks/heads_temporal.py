"""OTAM and TRX: tasks a second in one batch, one task at a time, and as a plain script of the published equations.

5-way 5-shot, 5 queries a class, T = 8, D = 512, random features. Wall and process time, medians; peak memory is that of
a fresh process that does nothing else, so it holds torch too (about 250 MB). ``python -m benchmarks.heads_temporal``.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from fsmm.episodes.batch import Episodes, Stream
from fsmm.heads.base import Head, Inputs
from fsmm.heads.build import build_head
from fsmm.heads.trx import TRX, TupleAttention

from .table import Row, print_rows

WAYS, SHOTS, PER_CLASS, STEPS, DIM = 5, 5, 5, 8, 512
FORMS = ("batch", "single", "plain")
LABELS = {"batch": "one batch", "single": "one task at a time", "plain": "plain script, one task at a time"}
TASKS = {"otam": 64, "trx": 8}


def random_tasks(count: int) -> Episodes:
    """Unit features without structure."""
    torch.manual_seed(0)

    def clips(*shape: int) -> Stream:
        x = F.normalize(torch.randn(*shape, STEPS, DIM), dim=-1)
        return Stream(x, torch.ones(shape, dtype=torch.bool), torch.full(shape, STEPS))

    label = torch.arange(WAYS).repeat(PER_CLASS).expand(count, -1)
    support, query = clips(count, WAYS, SHOTS), clips(count, WAYS * PER_CLASS)
    return Episodes({"frame": support}, {"frame": query}, label, torch.arange(WAYS).expand(count, -1))


def plain_otam(support: Tensor, query: Tensor) -> Tensor:
    """[N, K, T, D], [Q, T, D] -> logits [Q, N]: the recursion cell by cell over all pairs of the task."""
    s = F.normalize(support.flatten(0, 1), dim=-1)
    distance = 1 - torch.einsum("qid,sjd->qsij", F.normalize(query, dim=-1), s)
    m = F.pad(distance, (1, 1))
    rows, columns = m.shape[-2:]
    cost: dict[tuple[int, int], Tensor] = {}
    for i in range(rows):
        cost[i, 0] = torch.zeros_like(m[..., 0, 0])
        for j in range(1, columns):
            if i == 0:
                cost[i, j] = cost[i, j - 1] + m[..., i, j]
                continue
            before = [cost[i - 1, j - 1], cost[i, j - 1]]
            if j in (1, columns - 1):
                before.append(cost[i - 1, j])
            least = -0.1 * torch.logsumexp(torch.stack([-b / 0.1 for b in before]), 0)
            cost[i, j] = m[..., i, j] + least
    return -cost[rows - 1, columns - 1].unflatten(1, support.shape[:2]).mean(2)


def plain_trx(head: TRX, support: Tensor, query: Tensor) -> Tensor:
    """[N, K, T, D], [Q, T, D] -> logits [Q, N]: tuples written out, one class after another."""
    each = []
    for module in head.tuples.each:
        assert isinstance(module, TupleAttention)
        chosen = torch.tensor(list(combinations(range(STEPS), module.size)))
        s, q = (x[..., chosen, :].flatten(-2) for x in (support, query))
        k_s, v_s, k_q, v_q = (
            f(u) for u in (s, q) for f in (lambda u, m=module: m.norm(m.key(u)), module.value)
        )
        logits = []
        for k, v in zip(k_s.flatten(1, 2), v_s.flatten(1, 2)):
            weight = torch.softmax(k_q @ k.T / k.shape[-1] ** 0.5, -1)
            logits.append(-(v_q - weight @ v).square().sum(-1).mean(-1))
        each.append(torch.stack(logits, -1))
    return torch.stack(each).mean(0)


def work(method: str, form: str) -> tuple[Callable[[], object], int]:
    """What is timed, and how many tasks one call does."""
    count = TASKS[method]
    head = build_head(method, Inputs({"frame": (STEPS, DIM)})).eval()
    tasks = random_tasks(count if form == "batch" else 1)
    support, query = tasks.support["frame"].x[0], tasks.query["frame"].x[0]
    if form != "plain":
        return partial(head, tasks), count if form == "batch" else 1
    if isinstance(head, TRX):
        return partial(plain_trx, head, support, query), 1
    return partial(plain_otam, support, query), 1


@torch.no_grad()
def measure(method: str, form: str, repeats: int = 7) -> dict[str, float]:
    """Median seconds a task, wall and process, and peak memory of this process in MB."""
    run, count = work(method, form)
    run()
    wall, used = [], []
    for _ in range(repeats):
        started, spent = time.perf_counter(), time.process_time()
        run()
        wall.append((time.perf_counter() - started) / count)
        used.append((time.process_time() - spent) / count)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": statistics.median(wall), "process": statistics.median(used), "memory": memory}


def bench(method: str) -> list[Row]:
    """Rows of one method: each form in a process of its own; ratios by wall and by process time to the batch."""
    found = {}
    for form in FORMS:
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, method, form]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[form] = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for form in FORMS:
        seen, batch = found[form], found["batch"]
        name = f"{method}, {LABELS[form]}"
        for clock in ("wall", "process"):
            ratio = seen[clock] / batch[clock]
            against = "" if form == "batch" else "times the batch's time"
            unit = "tasks/s" if clock == "wall" else "tasks/s of process time"
            rows.append(Row(name, 1 / seen[clock], unit, against, ratio, seen["memory"]))
    return rows


def bench_otam() -> list[Row]:
    """OTAM's rows."""
    return bench("otam")


def bench_trx() -> list[Row]:
    """TRX's rows."""
    return bench("trx")


def run() -> list[Row]:
    """All rows."""
    return [*bench_otam(), *bench_trx()]


def check(method: str) -> float:
    """Largest difference of the plain script's logits from the head's, relative to their size."""
    head: Head = build_head(method, Inputs({"frame": (STEPS, DIM)}), _as_published(method)).double().eval()
    tasks = random_tasks(1).to("cpu", torch.float64)
    support, query = tasks.support["frame"].x[0], tasks.query["frame"].x[0]
    with torch.no_grad():
        plain = plain_trx(head, support, query) if isinstance(head, TRX) else plain_otam(support, query)
        ours = head(tasks)[0]
    return float((plain - ours).abs().max() / ours.abs().max())


def _as_published(method: str) -> dict[str, str]:
    plain = {"level": "false", "rescale": "false", "position": "0", "scale": "1", "width": "64"}
    return plain if method == "trx" else {}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
    else:
        print_rows("Temporal heads: 5-way 5-shot, 5 queries a class, T = 8, D = 512", run())
