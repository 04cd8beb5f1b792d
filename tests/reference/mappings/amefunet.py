"""AMeFu-Net's DGAdaIN, mean over frames, unit length and both episode classifiers of the released code."""

from __future__ import annotations

import torch
from case import Case, by_class
from torch import Tensor

from fsmm.cache.table import Stream
from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Inputs
from fsmm.heads.multimodal.amefunet import AMeFuNet, AMeFuNetSettings
from fsmm.heads.parts.distances import cosine

NAMES = {
    "affine.flow.scale.weight": "affine_scale.weight",
    "affine.flow.scale.bias": "affine_scale.bias",
    "affine.flow.shift.weight": "affine_bias.weight",
    "affine.flow.shift.bias": "affine_bias.bias",
}


def build(case: Case, head: str) -> AMeFuNet:
    steps, dim = case.inputs["support"].shape[1:]
    width = case.inputs["support_depth"].shape[-1]
    own = AMeFuNetSettings(
        "frame", "frame", head, scale=1.0, double_softmax=True, offsets=(0,), rescale=False
    )
    net = AMeFuNet(Inputs(streams={"frame": (steps, dim), "flow": (steps, width)}), own).double()
    net.load_state_dict({ours: case.params[theirs] for ours, theirs in NAMES.items()})
    return net.eval()


def stream(x: Tensor, axes: int) -> Stream:
    present = torch.ones(x.shape[:axes], dtype=torch.bool)
    return Stream(x, present, present.long() * x.shape[-2])


def episodes(case: Case) -> Episodes:
    """One task; queries keep their order."""
    given, label = case.inputs, case.inputs["support_labels"]
    support = {
        m: stream(by_class(given[k], label)[None], 3)
        for m, k in (("frame", "support"), ("flow", "support_depth"))
    }
    query = {m: stream(given[k][None], 2) for m, k in (("frame", "query"), ("flow", "query_depth"))}
    classes = label.unique()
    return Episodes(support, query, torch.searchsorted(classes, given["query_labels"])[None], classes[None])


def outputs(case: Case) -> dict[str, Tensor]:
    task = episodes(case)
    net = build(case, "protonet")
    scores = net.scores(task)
    loss = net.loss(task).total
    loss.backward()
    # the official order of supports, which need not be by class
    flat = {m: stream(case.inputs[k][None], 2) for m, k in (("frame", "support"), ("flow", "support_depth"))}
    shots, query = net.embed(flat)[0][0], net.embed(task.query)[0][0]
    given = {
        "support_emb": shots,
        "query_emb": query,
        "proto_sqdist": -scores[0],
        "proto_prob": torch.softmax(scores[0], -1),
        "loss_softmax_of_softmax": loss,
        "cosine_scores": cosine(query, shots),
        "dgadain_support": net.guided(flat["frame"], {"flow": flat["flow"]}).x[0],
        "loss_cosine": build(case, "cosine").loss(task).total,
    }
    own = dict(net.named_parameters())
    for ours, theirs in NAMES.items():
        gradient = own[ours].grad
        assert gradient is not None
        given[f"grad.{theirs}"] = gradient
    return given
