"""TCaF: places of clips and words, decoded words, the loss and its terms, in training and with either kind of time."""

from __future__ import annotations

import torch
from audio_visual_case import OWN, inputs, load, sequence_gradients, sequence_names, sequence_params, stream
from case import Case
from torch import Tensor

from fsmm.heads.embedding.audio_visual import Pairs
from fsmm.heads.embedding.tcaf import TCaF, TCaFSettings

NAMES = {
    "W_proj.fc.": "project_word.",
    "D_w.fc.": "decode_word.",
    "D_o.fc.": "decode.",
    OWN: "",
}


def attention_of(meta: dict[str, object]) -> str:
    """The setting for the two flags of the public code."""
    within = meta["transformer_attention_use_self_attention"]
    between = meta["transformer_attention_use_cross_attention"]
    return "all" if within and between else "within" if within else "between"


def build(case: Case) -> tuple[TCaF, dict[str, str]]:
    meta, params = case.meta, case.params
    settings = TCaFSettings(
        audio="audio",
        rescale=False,
        attention=attention_of(meta),
        dim=meta["dim_out"],
        token=meta["transformer_dim"],
        hidden=meta["encoder_hidden_size"] or 0,
        project_hidden=meta["decoder_hidden_size"] or 0,
        depth=meta["transformer_depth"],
        heads=meta["transformer_heads"],
        head_dim=meta["transformer_dim_head"],
        feed_forward=meta["transformer_mlp_dim"],
        place=meta["transformer_embedding_dim"],
        time=meta["time"],
        time_rows=meta["transformer_embedding_time_len"],
        encoder_dropout=0.0,
        decoder_dropout=0.0,
        dropout=0.0,
        released_inputs=True,
    )
    widths = [case.inputs[k].shape[-1] for k in ("audio", "video", "class_words")]
    head = TCaF(inputs(*widths), settings).double()
    names = {**NAMES, **sequence_names(settings.depth)}
    return head, load(head, sequence_params(params, settings.depth), names)


def outputs(case: Case) -> dict[str, Tensor]:
    given = case.inputs
    head, theirs = build(case)
    words, label = given["class_words"], given["gt"]
    pairs = Pairs(
        stream(given["audio"], given["mask_audio"]),
        stream(given["video"], given["mask_video"]),
        words[label],
        label,
    )
    times = given["time_audio"], given["time_video"]
    with torch.no_grad():
        head.eval()
        by_number = head.place(pairs.audio, pairs.video)
        by_time = head.place(pairs.audio, pairs.video, times)
        classes = head.place_words(words)
        head.train()
        place, named = head.place(pairs.audio, pairs.video, times), head.project_word(pairs.word)
        decoded, decoded_word = head.decode(place), head.decode_word(named)
    losses = head.losses(pairs, words, times)
    return {
        "train_theta_w": named,
        "train_rho_w": decoded_word,
        "train_theta_o": place,
        "train_rho_o": decoded,
        "train_loss": losses.total,
        "train_Loss_total_loss": losses.total,
        "train_Loss_loss_reg": losses.parts["gap"],
        "train_Loss_loss_cmd_rec": losses.parts["words"],
        "train_Loss_cross_entropy": losses.parts["ce"],
        "eval_theta_o_default_positions": by_number,
        "eval_theta_o_with_timesteps": by_time,
        "eval_theta_classes": classes,
        **sequence_gradients(head, losses.total, case, theirs),
    }
