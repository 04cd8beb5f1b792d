"""Tip-Adapter: weights of class words, the cache, its search, and the training of its keys.

The released statements train the keys on other images than those of the cache; here those are the queries.
"""

from __future__ import annotations

import math

import torch
from case import Case
from torch import Tensor
from torch.nn import functional as F
from word_case import built, word_task

from fsmm.heads.language.tip_adapter import (
    EPSILON,
    TipAdapter,
    TipAdapterSettings,
    cache_logits,
    key_gradient,
    search_grid,
)
from fsmm.heads.language.word_head import Samples, WordTask
from fsmm.heads.parts.descent import Descent


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def outputs(case: Case) -> dict[str, Tensor]:
    given, meta = case.inputs, case.meta
    text = unit(unit(given["text_templates"]).mean(1))
    support = unit(unit(given["support_views"]).mean(0))
    blend = (meta["beta"], meta["alpha"])
    head = built(TipAdapter, TipAdapterSettings(beta=blend[0], alpha=blend[1]), text)
    task, place = word_task(head, support, given["support_labels"], given["query"], text)
    evidence = head.evidence(task)
    found = {
        "clip_weights": text.T,
        "cache_keys": support.T,
        "cache_logits": cache_logits(task, evidence, (blend[0], 1.0))[0],
        "clip_logits": task.text_logits[0],
        "tip_logits": head.decide(task)[0],
    }
    grid = search_grid(tuple(meta["search_scale"]), tuple(meta["search_step"]))
    right = [
        (head.blended(task, evidence, pair)[0].argmax(-1) == given["query_labels"]).sum().item()
        for pair in grid
    ]
    best = grid[right.index(max(right))]
    found |= {"best_beta": torch.tensor(best[0]).double(), "best_alpha": torch.tensor(best[1]).double()}
    return found | trained(case, head, task, place)


def trained(case: Case, head: TipAdapter, task: WordTask, place: Tensor) -> dict[str, Tensor]:
    """The keys and losses of the first steps of training, as supports were given."""
    meta, label = case.meta, case.inputs["query_labels"]
    blend, keys = (meta["beta"], meta["alpha"]), head.keys(task)
    hot = F.one_hot(label, task.text.shape[1]).double()
    samples = Samples(task.query, hot, torch.full((1, len(label)), 1 / len(label)).double())
    optimiser = Descent("adamw", meta["F_lr"], decay=0.01, epsilon=meta.get("F_eps", EPSILON))
    losses, weights, first = [], [], None
    for step in range(len(case.expected["F_losses"])):
        optimiser.rate = meta["F_lr"] * (1 + math.cos(math.pi * step / meta["F_cosine_T_max"])) / 2
        logits = head.blended(task, task.query @ keys.transpose(1, 2), blend)
        losses.append(F.cross_entropy(logits[0], label))
        gradient = key_gradient(task, samples.x, keys, samples.residual(logits), blend)
        first = gradient if first is None else first
        keys = optimiser.step(keys, gradient)
        weights.append(keys[0][place])
    result = {"F_losses": torch.stack(losses), "F_weights": torch.stack(weights)}
    return result if first is None else {**result, "grad.adapter_weight_step0": first[0][place]}
