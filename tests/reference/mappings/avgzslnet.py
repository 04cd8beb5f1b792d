"""AVGZSLNet as in the repository of AVCA: embeddings, decoded words, the loss and distances to classes."""

from __future__ import annotations

from unittest import mock

import torch
from audio_visual_case import gradients, inputs, load, pairs
from case import Case
from torch import Tensor

from fsmm.heads.embedding import avgzslnet
from fsmm.heads.embedding.avgzslnet import AVGZSLNet, AVGZSLNetSettings

NAMES = {
    "triplet_net.embedding_net1.fc.": "audio_net.",
    "triplet_net.embedding_net2.fc.": "video_net.",
    "triplet_net.embedding_net3.fc.": "word_net.",
    "decoder_net.embedding_net.fc.": "decoder.",
}


def build(case: Case) -> tuple[AVGZSLNet, dict[str, str]]:
    meta, params = case.meta, case.params
    settings = AVGZSLNetSettings(
        version="avca",
        audio="audio",
        rescale=False,
        dim=meta["OD"],
        audio_hidden=(meta["hid"],),
        video_hidden=(meta["hid"],),
        word_hidden=(len(params["triplet_net.embedding_net3.fc.0.weight"]),),
        decoder_hidden=len(params["decoder_net.embedding_net.fc.0.weight"]),
        norm=meta["bn"],
        unit_decoded=meta["norm"],
        squared=meta["dist"] == "SquaredL2Loss",
        dropout=0.0,
        margin=meta["margin"],
    )
    widths = [case.inputs[k].shape[1] for k in ("audio", "video", "word")]
    head = AVGZSLNet(inputs(*widths), settings).double()
    return head, load(head, params, NAMES)


def outputs(case: Case) -> dict[str, Tensor]:
    right, wrong, words = pairs(case), pairs(case, "_neg"), case.inputs["class_words"]
    head, theirs = build(case)
    head.eval()
    with torch.no_grad():
        points, classes = head.points(right.audio, right.video), head.place_words(words)
        heard_alone, seen_alone = points.place.unbind(1)
        both = torch.cdist(points.place.transpose(0, 1), classes).sum(0)
    head.train()
    own, other = head._embedded(right), head._embedded(wrong)
    with mock.patch.object(avgzslnet, "wrong_pairs", return_value=(right, wrong)):
        loss = head.pair_loss(right, words).total
    return {
        "train_x_t_p": right.word,
        "train_a_p": own.heard,
        "train_v_p": own.seen,
        "train_t_p": own.named,
        "train_a_q": other.heard,
        "train_v_q": other.seen,
        "train_t_q": other.named,
        "train_x_ta_p": head.decoded(own.heard),
        "train_x_tv_p": head.decoded(own.seen),
        "train_x_tt_p": head.decoded(own.named),
        "train_x_ta_q": head.decoded(other.heard),
        "train_x_tv_q": head.decoded(other.seen),
        "train_loss": loss,
        "eval_a": heard_alone,
        "eval_v": seen_alone,
        "eval_classes": classes,
        "eval_distance_both": both,
        **gradients(head, loss, case, theirs),
    }
