"""ClipClap: places of clips and words in training and testing, decoded words, the loss and its terms."""

from __future__ import annotations

import torch
from audio_visual_case import gradients, inputs, load, pairs
from case import Case
from torch import Tensor

from fsmm.heads.embedding.audio_visual import Pairs
from fsmm.heads.embedding.clipclap import ClipClap, ClipClapSettings

NAMES = {
    "O_enc.fc.": "join.",
    "W_enc.fc.": "encode_word.",
    "O_proj.fc.": "project.",
    "D_o.fc.": "decode.",
    "W_proj.fc.": "project_word.",
    "D_w.fc.": "decode_word.",
}


def read(case: Case) -> tuple[Pairs, Tensor]:
    """The pairs and the words of all classes, without what the case's mode leaves out."""
    given, words, mode = (
        pairs(case, label=case.inputs["labels"]),
        case.inputs["class_words"],
        case.meta["mode"],
    )
    if mode == "both":
        return given, words
    width = case.meta["E"]
    part = slice(width, None) if mode == "audio" else slice(0, width)
    empty = given.audio if mode == "video" else given.video
    nothing = type(empty)(empty.x[..., :0], empty.present, empty.length)
    kept = given._replace(word=given.word[:, part], **{"video" if mode == "audio" else "audio": nothing})
    return kept, words[:, part]


def outputs(case: Case) -> dict[str, Tensor]:
    meta = case.meta
    given, words = read(case)
    settings = ClipClapSettings(
        audio="audio", rescale=False, width=meta["E"], hidden=meta["hid"], dim=meta["out"], dropout=0.0
    )
    widths = given.audio.x.shape[-1], given.video.x.shape[-1], words.shape[-1]
    head = ClipClap(inputs(*widths), settings).double()
    theirs = load(head, case.params, NAMES)
    with torch.no_grad():
        head.eval()
        tested = _places(head, given, "eval")
        classes = head.place_words(words)
        head.train()
        trained = _places(head, given, "train")
    losses = head.pair_loss(given, words)
    return {
        **tested,
        **trained,
        "eval_theta_classes": classes,
        "eval_distance": torch.cdist(tested["eval_theta_o"], classes),
        "loss": losses.total,
        "loss_reg": losses.parts["gap"],
        "loss_rec": losses.parts["words"],
        "loss_ce": losses.parts["ce"],
        **gradients(head, losses.total, case, theirs),
    }


def _places(head: ClipClap, given: Pairs, when: str) -> dict[str, Tensor]:
    word, place = head.encode_word(given.word), head.points(given.audio, given.video).place[:, 0]
    named = head.project_word(word)
    return {
        f"{when}_w": word,
        f"{when}_theta_w": named,
        f"{when}_rho_w": head.decode_word(named),
        f"{when}_theta_o": place,
        f"{when}_rho_o": head.decode(place),
    }
