"""MPL's matches and prototypes (jayzh-research/MPL-FSAR), without the backbone and the text branch."""

from __future__ import annotations

from dataclasses import replace

import torch
from case import ONLY, Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.heads.head import Inputs
from fsmm.heads.temporal.mpl import MPL, MPLSettings, shot_mean

SHOTS, CONTEXT = "proto_generator.transformer", "context2.layers.0"
NAMES = {
    "shots.query.weight": f"{SHOTS}.w_qs.weight",
    "shots.key.weight": f"{SHOTS}.w_ks.weight",
    "shots.value.weight": f"{SHOTS}.w_vs.weight",
    "shots.out.weight": f"{SHOTS}.fc.weight",
    "shots.out.bias": f"{SHOTS}.fc.bias",
    "shots.norm.weight": f"{SHOTS}.layer_norm.weight",
    "shots.norm.bias": f"{SHOTS}.layer_norm.bias",
    "context.norm.weight": f"{CONTEXT}.0.norm.weight",
    "context.norm.bias": f"{CONTEXT}.0.norm.bias",
    "context.out.weight": f"{CONTEXT}.0.fn.to_out.0.weight",
    "context.out.bias": f"{CONTEXT}.0.fn.to_out.0.bias",
    "context.widen.weight": f"{CONTEXT}.1.net.0.weight",
    "context.widen.bias": f"{CONTEXT}.1.net.0.bias",
    "context.narrow.weight": f"{CONTEXT}.1.net.3.weight",
    "context.narrow.bias": f"{CONTEXT}.1.net.3.bias",
}


def build(case: Case) -> MPL:
    meta = case.meta
    own = MPLSettings(
        nearest=meta["topk"],
        window=meta["window"],
        keys="released",
        heads=meta["heads"],
        width=0,
        hidden=meta["mlp"],
        rescale=False,
        start=False,
    )
    head = MPL(Inputs(streams={ONLY: tuple(case.inputs["query"].shape[1:])}), own).double().eval()
    state = {ours: case.params[theirs] for ours, theirs in NAMES.items()}
    parts = [case.params[f"{CONTEXT}.0.fn.to_{part}.weight"] for part in "qkv"]
    head.load_state_dict(state | {"context.qkv.weight": torch.cat(parts)})
    return head


def outputs(case: Case) -> dict[str, Tensor]:
    label = case.inputs["support_labels"]
    task = one_task(by_class(case.inputs["support"], label), case.inputs["query"], query_classes(case))
    head = build(case)
    loss = head.loss(task).total
    loss.backward()
    clips = head.clips(task)
    enhanced, present = head.enhanced(clips), clips.support_present
    prototypes = head.prototypes(enhanced, present)
    related = head.related(prototypes)
    match = head.key_match(prototypes, clips.query)
    both = torch.cat(head.matched_keys(related, clips, match), 1)
    given = {
        "logits": head(task)[0],
        "loss": loss,
        "prototypes": prototypes[0],
        "e_match_class_distance": head.match_distances(clips)[0].unflatten(-1, present.shape[1:]).mean(-1),
        "window_prototypes": shot_mean(head.shots(enhanced, present), present)[0],
        "k_match": match.distance[0],
        "k_match_support_to_query_index": match.to_query[0],
        "k_match_query_to_support_index": match.to_class[0],
        "context_prototypes": related[0],
        "context_keys": head.related(both)[0],
    }
    head.settings = replace(head.settings, window=1)
    given["k_match_window1"] = head.key_match(prototypes, clips.query).distance[0]
    gradients = {NAMES[name]: p.grad for name, p in head.named_parameters() if name in NAMES}
    return given | {
        f"grad.{name}": gradients[name] for name in case.wanted("grad.") if gradients.get(name) is not None
    }
