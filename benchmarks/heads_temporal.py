"""OTAM and TRX in batches, beside one task at a time, and beside a plain script of the published equations.

The tasks are 5-way 1- and 5-shot with 15 queries a class, T = 8, D = 512, from 20 synthetic classes of 30 clips; a test
has 10,000 episodes, or as many as fit some seconds. Each form runs in a fresh process, whose peak memory holds torch
too (about 250 MB). The command is ``python -m benchmarks.heads_temporal``.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from fsmm.episodes.batch import Episodes
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head
from fsmm.heads.parts.tuple_attention import TupleAttention
from fsmm.heads.temporal.trx import TRX
from fsmm.machine.memory import keep_freed_memory

from .episodes import STEPS, synthetic_bank
from .heads import one_by_one, rate, standard_test
from .table import Row, print_rows

CLIPS, SECONDS = 30, 10.0
FORMS = ("ours", "single", "plain")
LABELS = {"ours": "ours", "single": "one task at a time", "plain": "plain script, one task at a time"}


def task(shots: int) -> Protocol:
    """The protocol of the measured episodes."""
    return Protocol(n_way=5, k_shot=shots, n_query=15)


def plain_otam(support: Tensor, query: Tensor) -> Tensor:
    """Logits [Q, N] of supports [N, K, T, D] and queries [Q, T, D], by the recursion cell by cell over all pairs."""
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
    """Logits [Q, N] of supports [N, K, T, D] and queries [Q, T, D], with tuples written out, class after class."""
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


def measure(method: str, form: str, shots: int) -> dict[str, float]:
    """Episodes a second of one form, and this process's peak memory in MB."""
    keep_freed_memory()  # Every form profits from this, not only ours.
    bank, protocol = synthetic_bank(STEPS, clips=CLIPS), task(shots)
    head = build_head(method, inputs_of(bank)).eval()
    if form == "ours":
        found = standard_test(head, bank, protocol, SECONDS)
    else:
        forward = head if form == "single" else plain_form(head)
        found = rate(one_by_one(forward, bank, protocol), 2.0)
    return {"rate": found, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def plain_form(head: Head) -> Callable[[Episodes], Tensor]:
    """A function that runs the plain script and is called like a head."""

    def forward(episodes: Episodes) -> Tensor:
        support, query = episodes.support["frame"].x[0], episodes.query["frame"].x[0]
        if isinstance(head, TRX):
            return plain_trx(head, support, query)[None]
        return plain_otam(support, query)[None]

    return forward


def bench(method: str, shots: int) -> list[Row]:
    """The rows of one method, with each form in a process of its own."""
    found = {}
    for form in FORMS:
        command = [sys.executable, "-m", "fsmm.benchmarks.heads_temporal", method, form, str(shots)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[form] = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for form in FORMS[::-1]:
        seen, name = found[form], f"{method}, {shots}-shot, {LABELS[form]}"
        times = found["ours"]["rate"] / seen["rate"]
        against = "" if form == "ours" else "is how much faster ours is"
        rows.append(
            Row(
                name=name,
                rate=seen["rate"],
                unit="episodes/s",
                against=against,
                ratio=times if against else float("nan"),
                memory_mb=seen["memory"],
            )
        )
    return rows


def run() -> list[Row]:
    """All rows of the table."""
    return [row for method in ("otam", "trx") for shots in (1, 5) for row in bench(method, shots)]


def check(method: str) -> float:
    """The largest difference of the plain script's logits from the head's, relative to their size."""
    bank = synthetic_bank(STEPS, clips=CLIPS)
    head: Head = build_head(method, inputs_of(bank), _as_published(method)).double().eval()
    index = next(Sampler(bank, task(5)).batches(0, 1, 1))
    episodes = materialise(bank, index, task(5)).to("cpu", torch.float64)
    with torch.no_grad():
        plain, ours = plain_form(head)(episodes), head(episodes)
    return float((plain - ours).abs().max() / ours.abs().max())


def _as_published(method: str) -> dict[str, str]:
    plain = {"level": "false", "rescale": "false", "position": "0", "scale": "1", "width": "64"}
    return plain if method == "trx" else {}


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        print_rows("Temporal heads: 5-way, 15 queries a class, T = 8, D = 512, 20 classes x 30 clips", run())
