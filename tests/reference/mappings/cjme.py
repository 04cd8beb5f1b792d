"""CJME as in the repository of AVCA: embeddings, attention, the loss and distances to classes."""

from __future__ import annotations

from unittest import mock

import torch
from audio_visual_case import gradients, inputs, load, pairs
from case import Case
from torch import Tensor

from fsmm.heads.embedding import cjme
from fsmm.heads.embedding.cjme import CJME, CJMESettings

NAMES = {
    "triplet_net.embedding_net1.fc.": "audio_net.",
    "triplet_net.embedding_net2.fc.": "video_net.",
    "triplet_net.embedding_net3.fc.": "word_net.",
    "attention_model.": "attention.",
}


def build(case: Case) -> tuple[CJME, dict[str, str]]:
    meta, params = case.meta, case.params
    settings = CJMESettings(
        audio="audio",
        rescale=False,
        dim=meta["OD"],
        hidden=meta["hid"],
        text_hidden=len(params["triplet_net.embedding_net3.fc.0.weight"]),
        norm=meta["bn"],
        dropout=0.0,
        margin=meta["margin"],
        surer=meta["epsilon"],
    )
    widths = [case.inputs[k].shape[1] for k in ("audio", "video", "word")]
    head = CJME(inputs(*widths), settings).double()
    return head, load(head, params, NAMES)


def outputs(case: Case) -> dict[str, Tensor]:
    right, wrong, words = pairs(case), pairs(case, "_neg"), case.inputs["class_words"]
    head, theirs = build(case)
    head.eval()
    with torch.no_grad():
        trust = head.trust(right.audio.pooled(), right.video.pooled())
        points = head.points(right.audio, right.video)
        each = torch.cdist(points.place.transpose(0, 1), head.place_words(words))
        distance = (each * points.weight.T[..., None]).sum(0)
    head.train()
    heard, seen, named = head._embedded(right)
    heard_wrong, seen_wrong, named_wrong = head._embedded(wrong)
    classes = head.place_words(words)
    with mock.patch.object(cjme, "wrong_pairs", return_value=(right, wrong)):
        loss = head.pair_loss(right, words).total
    attention = head.trust(right.audio.pooled(), right.video.pooled())[:, None]
    return {
        "train_a_p": heard,
        "train_v_p": seen,
        "train_t_p": named,
        "train_a_q": heard_wrong,
        "train_v_q": seen_wrong,
        "train_t_q": named_wrong,
        "train_attention": attention,
        "train_threshold": (attention > 0.5).double(),
        "train_class_emb": classes,
        "train_loss": loss,
        "eval_attention": trust[:, None],
        "eval_distance": distance,
        **gradients(head, loss, case, theirs),
    }
