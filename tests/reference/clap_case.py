"""What the mappings of CLAP, ZS-LP and TaskRes share: the path of the prototypes under the official schedule."""

from __future__ import annotations

import torch
from case import Case
from torch import Tensor
from torch.nn import functional as F

from fsmm.heads.language.clap import Prototypes, PrototypeSettings, learning_rate
from fsmm.heads.language.word_head import Samples
from fsmm.heads.parts.descent import cosine_logits


def path(case: Case, constraint: str | None, residual: float | None = None) -> dict[str, Tensor]:
    """All outputs; ``residual``: the factor of a residual, where the official parameter is one."""
    given, meta = case.inputs, case.meta
    text, label = case.params["adapter.base_text_features"][None], given["labels"]
    hot = F.one_hot(label, text.shape[1]).double()
    share = torch.full((1, len(label)), 1 / len(label)).double()
    samples = Samples(F.normalize(given["features"], dim=-1)[None], hot, share)
    scale = meta["logit_scale"]
    problem = Prototypes(samples, text, scale=scale, constraint=constraint)
    own = PrototypeSettings(steps=meta["epochs"], rate=meta["lr"], momentum=meta["momentum"])
    first, factor = problem.start(), residual or 1.0
    after = list(problem.descend(own, factor**2))
    before = [first, *after[:-1]]
    ce = torch.stack([F.cross_entropy(problem.logits(state)[0], label) for state in before])
    held = torch.stack([problem.penalty(state)[0] for state in before])
    held = held if constraint is not None else torch.zeros_like(held)
    query = F.normalize(given["query"], dim=-1)[None]
    moved = torch.stack([state.w[0] for state in after])
    return {
        "zeroshot_logits_query": cosine_logits(query, text, scale)[0],
        "alpha": first.multiplier[0],
        "loss": ce + held,
        "ce": ce,
        "constraint": held,
        "lr": torch.tensor([learning_rate(own, step) for step in range(own.steps)]),
        "prototypes": moved if residual is None else (moved - text) / residual,
        "query_logits": cosine_logits(query, after[-1].w, scale)[0],
        "alpha_steps": torch.stack([state.multiplier[0] for state in after]),
        "rho_steps": torch.stack([state.growth[0] for state in after]),
        "grad.prototypes_step0": factor * problem.gradient(first)[0],
    }
