"""HyRSM and HyRSM++ (alibaba-mmai-research): the four stems share their names; this file serves them all."""

from __future__ import annotations

from typing import Any

import torch
from case import ONLY, Case, by_class, one_task
from torch import Tensor

from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Inputs
from fsmm.heads.temporal.hyrsm import HyRSM, HyRSMSettings, frame_logits, frame_loss
from fsmm.heads.temporal.hyrsmpp import HyRSMPlusPlus, HyRSMPlusPlusSettings

NAMES = {
    "within.norm.weight": "temporal_atte_before.norm.weight",
    "within.norm.bias": "temporal_atte_before.norm.bias",
    "within.qkv.weight": "temporal_atte_before.fn.to_qkv.weight",
    "within.out.weight": "temporal_atte_before.fn.to_out.0.weight",
    "within.out.bias": "temporal_atte_before.fn.to_out.0.bias",
    "between.query.weight": "temporal_atte.w_qs.weight",
    "between.key.weight": "temporal_atte.w_ks.weight",
    "between.value.weight": "temporal_atte.w_vs.weight",
    "between.out.weight": "temporal_atte.fc.weight",
    "between.out.bias": "temporal_atte.fc.bias",
    "between.norm.weight": "temporal_atte.layer_norm.weight",
    "between.norm.bias": "temporal_atte.layer_norm.bias",
    "blend.weight": "layer2.0.weight",
    "blend.bias": "layer2.0.bias",
    "classifier.weight": "classification_layer.weight",
    "classifier.bias": "classification_layer.bias",
}


def build(case: Case, episodes: Episodes) -> HyRSM[Any]:
    meta = case.meta
    shared = {
        "heads": meta["heads"], "form": "videos" if case.stem.endswith("1shot") else "prototypes", "average": False,
        "scale": 1.0, "rescale": False, "start": False, "classify": meta.get("cls_weight", 0.0),
        "position_a": meta.get("POSITION_A", 10.0), "position_b": meta.get("POSITION_B", 1.0),
    }  # fmt: skip
    inputs = Inputs(streams={ONLY: tuple(episodes.query[ONLY].x.shape[-2:])})
    head: HyRSM[Any]
    if "WINDOW_SIZE" in meta:
        factor = meta["BALANCE_COEFFICIENT"] or 1.0  # the released code reads 0 as unset
        plus = {"window": meta["WINDOW_SIZE"], "sigma": meta["TEMPORAL_BALANCE"]}
        head = HyRSMPlusPlus(inputs, HyRSMPlusPlusSettings(**shared, **plus, balance=factor))
    else:
        head = HyRSM(inputs, HyRSMSettings(**shared))
    head.set_classes(torch.arange(len(case.params["classification_layer.bias"])))
    head = head.double().eval()
    state = head.state_dict()
    state |= {ours: case.params[theirs].view_as(state[ours]) for ours, theirs in NAMES.items()}
    head.load_state_dict(state)
    return head


def outputs(case: Case) -> dict[str, Tensor]:
    support_label, label = case.inputs["support_labels"], case.inputs["query_labels"].long()
    episodes = one_task(by_class(case.inputs["support"], support_label), case.inputs["query"], label)
    head = build(case, episodes)
    clips = head.encode(episodes.support[ONLY]), head.encode(episodes.query[ONLY])
    related = head.relate(*clips)
    assert head.classifier is not None
    loss = head.loss(episodes).parts["ce"]
    if "support_global" in case.inputs:
        # the file's base-class ids are drawn clip by clip, so they cannot come from the episode's classes
        rows = by_class(case.inputs["support_global"], support_label)[None], case.inputs["query_global"][None]
        loss = loss + head.settings.classify * frame_loss(head.classifier, clips, rows)
    loss.backward()
    # the supports' frames back in the file's order
    frames, steps = frame_logits(head.classifier, clips), related.query.shape[-2]
    place = torch.argsort(torch.argsort(support_label, stable=True))
    count = len(place)
    frames = frames.unflatten(0, (-1, steps))
    frames = torch.cat([frames[:count][place], frames[count:]]).flatten(0, 1)
    given = {"logits": head(episodes)[0], "class_logits": frames, "loss": loss}
    if isinstance(head, HyRSMPlusPlus):
        weight, inside = head.window_weights(related.query)
        given |= {
            "loss_temporal_regular": head.incoherence(related), "temproal_regular": weight,
            "temproal_regular_label": inside.double(),
        }  # fmt: skip
    gradient = {NAMES[name]: p.grad for name, p in head.named_parameters()}
    given |= {
        f"grad.{name}": gradient[name].view_as(case.params[name])
        for name in case.wanted("grad.")
        if gradient.get(name) is not None
    }
    return given
