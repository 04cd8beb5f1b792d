"""tobyperrett/trx: one module a cardinality, "0." the pairs and "1." the triples.

Two official parameters have no counterpart: the values' bias, which cancels in v - sum a v (its gradient is zero), and
norm_v, which the released code never uses.
"""

from __future__ import annotations

import torch
from case import ONLY, Case, by_class, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.parts.losses import cross_entropy
from fsmm.heads.temporal.trx import TRX, TRXSettings

NAMES = {
    "key.weight": "k_linear.weight",
    "key.bias": "k_linear.bias",
    "value.weight": "v_linear.weight",
    "norm.weight": "norm_k.weight",
    "norm.bias": "norm_k.bias",
}


def names(cardinalities: int) -> dict[str, str]:
    """Our parameter -> the official one."""
    return {
        f"tuples.each.{i}.{ours}": f"{i}.{theirs}"
        for i in range(cardinalities)
        for ours, theirs in NAMES.items()
    }


def outputs(case: Case) -> dict[str, Tensor]:
    meta, query = case.meta, case.inputs["query"]
    own = TRXSettings(
        cardinalities=tuple(meta["temp_set"]),
        width=meta["out_dim"],
        position=meta["pe_scale"],
        dropout=0.0,
        level=False,
        rescale=False,
        scale=1.0,
    )
    head = TRX(Inputs(streams={ONLY: tuple(query.shape[1:])}), own).double()
    table = names(len(own.cardinalities))
    head.load_state_dict({ours: case.params[theirs] for ours, theirs in table.items()})
    support = by_class(case.inputs["support"], case.inputs["support_labels"])
    episodes = one_task(support, query, case.inputs["query_labels"].long())
    logits = head(episodes)
    loss = cross_entropy(logits, episodes.query_label, "sum")
    loss.backward()
    words = {1: "singles", 2: "pairs", 3: "triples", 4: "quadruples"}
    encoded = (head.tuples.encode(side[ONLY]) for side in (episodes.support, episodes.query))
    alone = head.tuples.by_cardinality(*encoded)
    given = {f"logits_{words[size]}": one[0] for size, one in zip(own.cardinalities, alone)}
    gradient = {table[name]: p.grad for name, p in head.named_parameters()}
    gradient |= {
        name: torch.zeros_like(p) for name, p in case.params.items() if name.endswith("v_linear.bias")
    }
    given |= {f"grad.{name}": gradient[name] for name in case.wanted("grad.") if name in gradient}
    return given | {"logits": logits[0], "loss": loss}
