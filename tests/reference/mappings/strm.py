"""Anirudh257/strm after its backbone: 4x4 patch maps in, side by side as one step's features.

The values' bias cancels in TRX's difference and norm_v is unused, so neither has a counterpart. The official position
codes are plain sinusoids, made anew here.
"""

from __future__ import annotations

import torch
from case import ONLY, Case, by_class, one_task
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.strm import STRM, STRMSettings

TUPLES = {
    "key.weight": "k_linear.weight",
    "key.bias": "k_linear.bias",
    "value.weight": "v_linear.weight",
    "norm.weight": "norm_k.weight",
    "norm.bias": "norm_k.bias",
}
LAYERS = {
    "patches.query": "attn_pat.query_proj",
    "patches.key": "attn_pat.key_proj",
    "patches.value": "attn_pat.value_conv",
    "patches.mix.linear.0": "attn_pat.Bot_MLP.inp_fc",
    "patches.mix.linear.1": "attn_pat.Bot_MLP.hid_fc",
    "patches.mix.linear.2": "attn_pat.Bot_MLP.out_fc",
    "frames.along_time.linear.0": "fr_enrich.Tok_MLP.inp_fc",
    "frames.along_time.linear.1": "fr_enrich.Tok_MLP.out_fc",
    "frames.along_features.linear.0": "fr_enrich.Bot_MLP.inp_fc",
    "frames.along_features.linear.1": "fr_enrich.Bot_MLP.out_fc",
}


def names(cardinalities: int) -> dict[str, str]:
    """Our parameter -> the official one."""
    table = {"patches.gain": "attn_pat.gamma"}
    for part in ("weight", "bias"):
        table |= {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in LAYERS.items()}
    for i in range(cardinalities):
        table |= {f"tuples.each.{i}.{ours}": f"transformers.{i}.{theirs}" for ours, theirs in TUPLES.items()}
        for part in ("weight", "bias"):
            table[f"near.{i}.out.{part}"] = f"new_dist_loss_post_pat[{i}].clsW.{part}"
    return table


def clips(patches: Tensor, steps: int) -> Tensor:
    """[videos*T, D, H, W] -> [videos, T, H*W*D], patch after patch."""
    return patches.flatten(2).transpose(1, 2).flatten(1).unflatten(0, (-1, steps))


def outputs(case: Case) -> dict[str, Tensor]:
    meta = case.meta
    query = clips(case.inputs["query_patches"], meta["T"])
    support = by_class(clips(case.inputs["support_patches"], meta["T"]), case.inputs["support_labels"])
    own = STRMSettings(
        cardinalities=tuple(meta["temp_set"]), width=meta["out_dim"], dropout=0.0, level=False, rescale=False,
        scale=1.0, patches=meta["num_patches"],
        auxiliary=meta["aux_weight"],
    )  # fmt: skip
    head = STRM(Inputs(streams={ONLY: tuple(query.shape[1:])}), own).double()
    table = names(len(own.cardinalities))
    head.load_state_dict({ours: case.params[theirs] for ours, theirs in table.items()})
    episodes = one_task(support, query, case.inputs["query_labels"].long())
    enriched = head.enriched(episodes.support[ONLY]), head.enriched(episodes.query[ONLY])
    # the published loss adds over the queries of a task, ours is their mean
    loss = head.loss(episodes).total * episodes.queries
    loss.backward()
    gradient = {table[name]: p.grad for name, p in head.named_parameters()}
    gradient |= {
        name: torch.zeros_like(p) for name, p in case.params.items() if name.endswith("v_linear.bias")
    }
    given = {f"grad.{name}": gradient[name] for name in case.wanted("grad.") if name in gradient}
    second = head.auxiliary_logits(*enriched)
    return given | {"logits": head(episodes)[0], "logits_post_pat": second[0], "loss": loss}
