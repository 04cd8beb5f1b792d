"""AVCA: embeddings, decoded words, reconstructions, batch norms, the loss and distances to classes."""

from __future__ import annotations

import torch
from audio_visual_case import gradients, inputs, load, pairs
from case import Case
from torch import Tensor

from fsmm.heads.embedding.avca import AVCA, AVCASettings

NAMES = {
    "pos_emb1D": "position",
    "A_enc.fc.": "encode_audio.",
    "V_enc.fc.": "encode_video.",
    "W_proj.fc.": "project_word.",
    "A_proj.fc.": "project_audio.",
    "V_proj.fc.": "project_video.",
    "A_rec.fc.": "again_audio.",
    "V_rec.fc.": "again_video.",
    "D.fc.": "decoder.",
}
BLOCK = {
    "0.norm.": "norm.",
    "0.fn.to_qkv.": "qkv.",
    "0.fn.to_out.0.": "out.",
    "1.norm.": "second_norm.",
    "1.fn.net.0.": "widen.",
    "1.fn.net.3.": "narrow.",
}


def hidden_of(params: dict[str, Tensor], net: str) -> int:
    """The width of the hidden layer of an official network; 0 where it has one step."""
    return len(params[f"{net}.fc.0.bias"]) if f"{net}.fc.4.weight" in params else 0


def build(case: Case) -> tuple[AVCA, dict[str, str]]:
    meta, params = case.meta, case.params
    settings = AVCASettings(
        audio="audio",
        rescale=False,
        dim=meta["dim_out"],
        hidden=hidden_of(params, "A_enc"),
        project_hidden=hidden_of(params, "A_proj"),
        depth=meta["depth"],
        heads=meta["heads"],
        head_dim=meta["hd"],
        feed_forward=meta["mlp_dim"],
        encoder_dropout=0.0,
        decoder_dropout=0.0,
        project_dropout=0.0,
        momentum=meta["momentum"],
        margin=meta["margin"],
        more_triplets=meta["add"],
        regular=meta["reg"],
    )
    widths = [case.inputs[k].shape[1] for k in ("audio", "video", "word")]
    head = AVCA(inputs(*widths), settings).double()
    blocks = {
        f"cross_attention.layers.{i}.{theirs}": f"blocks.{i}.{ours}"
        for i in range(meta["depth"])
        for theirs, ours in BLOCK.items()
    }
    return head, load(head, params, {**NAMES, **blocks})


def outputs(case: Case) -> dict[str, Tensor]:
    right, wrong, words = pairs(case), pairs(case, "_neg"), case.inputs["class_words"]
    head, theirs = build(case)
    head.position.requires_grad_(True)
    head.eval()
    with torch.no_grad():
        points, classes = head.points(right.audio, right.video), head.place_words(words)
        heard_alone, seen_alone = points.place.unbind(1)
    # The official parameters were stored after the training step, so that its running statistics are among them.
    state = {ours: value.clone() for ours, value in head.state_dict().items()}
    norms = {f"bn_after_train.{official}": state[ours] for ours, official in theirs.items()}
    head.train()
    own, other = head.embedded(right), head.embedded(wrong)
    loss = head.losses(own, other, right.word).total
    return {
        "train_phi_a": own.phi_a,
        "train_phi_v": own.phi_v,
        "train_theta_a": own.place_a,
        "train_theta_v": own.place_v,
        "train_theta_w": own.place_w,
        "train_theta_a_neg": other.place_a,
        "train_theta_v_neg": other.place_v,
        "train_theta_w_neg": other.place_w,
        "train_rho_a": own.word_a,
        "train_rho_v": own.word_v,
        "train_rho_w": own.word_w,
        "train_phi_a_rec": own.again_a,
        "train_phi_v_rec": own.again_v,
        "train_loss": loss,
        "eval_theta_a": heard_alone,
        "eval_theta_v": seen_alone,
        "eval_theta_w_classes": classes,
        "eval_video_distances": torch.cdist(seen_alone, classes),
        **norms,
        **gradients(head, loss, case, theirs),
    }
