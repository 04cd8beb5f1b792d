"""MoLo's two branches on maps [videos * T, D, H, W]; official names are temporal_atte_before.layers.0.0.norm and so on.

The cases' classes over the whole label set are drawn for each clip by itself, so the objective is given them.
"""

from __future__ import annotations

import torch
from case import ONLY, Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.molo import MoLo, MoLoSettings

PLAIN = {"classifier": "classification_layer", "motion.reduce": "motion_reduce", "motion.smooth": "motion_conv",
         "motion.up": "motion_up"}  # fmt: skip
BLOCK = {"norm.weight": "0.norm.weight", "norm.bias": "0.norm.bias", "qkv.weight": "0.fn.to_qkv.weight",
         "out.weight": "0.fn.to_out.0.weight", "out.bias": "0.fn.to_out.0.bias", "widen.weight": "1.net.0.weight",
         "widen.bias": "1.net.0.bias", "narrow.weight": "1.net.3.weight", "narrow.bias": "1.net.3.bias"}  # fmt: skip


def state(case: Case) -> dict[str, Tensor]:
    """Our parameters from the official ones."""
    p = case.params
    ours = {f"{mine}.{k}": p[f"{theirs}.{k}"] for mine, theirs in PLAIN.items() for k in ("weight", "bias")}
    for branch, suffix in (("appearance", ""), ("movement", "_motion")):
        ours[f"{branch}.token"] = p[f"class_token{suffix}"].flatten()
        for mine, theirs in BLOCK.items():
            ours[f"{branch}.block.{mine}"] = p[f"temporal_atte_before{suffix}.layers.0.{theirs}"]
    ours["temperature"] = torch.cat([p["scale"], p["scale_motion"]]).double()
    ours["base.known"] = torch.zeros(len(p["classification_layer.bias"]), dtype=torch.bool)
    return ours


def build(case: Case) -> MoLo:
    meta, params = case.meta, case.params
    dim, side = case.inputs["support_maps"].shape[1], case.inputs["support_maps"].shape[-1]
    own = MoLoSettings(
        side=side,
        rescale=False,
        position_a=float(meta["POSITION_A"]),
        position_b=float(meta["POSITION_B"]),
        rectify=True,
        heads=meta["heads"],
        width=0,
        hidden=meta["mlp_dim"],
        dropout=0.0,
        motion=float(meta["motion_logit_weight"] or 0.3),  # the released code reads 0 as unset
        reduce=meta["factor"],
        average=False,
        scale=1.0,
        single_direct=bool(meta["single_direct"]),
        classes=len(params["classification_layer.bias"]),
        start=False,
    )
    head = MoLo(Inputs(streams={ONLY: (meta["T"], dim * side * side)}), own).double()
    head.load_state_dict(state(case))
    return head.eval()


def outputs(case: Case) -> dict[str, Tensor]:
    given, steps = case.inputs, case.meta["T"]
    support, query = (
        given[f"{side}_maps"].unflatten(0, (-1, steps)).flatten(2) for side in ("support", "query")
    )
    label = given["support_labels"]
    task = one_task(by_class(support, label), query, query_classes(case))
    head = build(case)
    views = head.views(task)
    (s2q, q2s), (s2q_motion, q2s_motion) = head.contrasts(views)
    order, count = torch.argsort(label, stable=True), len(label)
    truth = torch.cat([given["support_global"][order], given["query_global"]])[None]
    ours = head.class_logits(views)[0]
    return {
        "logits": head.logits(views.query, views.classes)[0],
        "class_logits": torch.cat([ours[:count][torch.argsort(order)], ours[count:]]),
        "logits_s2q": s2q[0],
        "logits_q2s": q2s[0],
        "logits_s2q_motion": s2q_motion[0],
        "logits_q2s_motion": q2s_motion[0],
        "loss": head.objective(
            views, task.query_label, (truth, torch.ones_like(truth, dtype=torch.bool))
        ).total,
    }
