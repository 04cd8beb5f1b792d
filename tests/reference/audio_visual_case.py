"""Helpers of mappings for the audio-visual zero-shot family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from case import Case
from torch import Tensor, nn

from fsmm.episodes.batch import Stream
from fsmm.heads.embedding.audio_visual import Pairs
from fsmm.heads.head import Inputs


def inputs(audio: int, video: int, words: int, classes: int = 1) -> Inputs:
    """What a head is built for, of features and words of these widths."""
    return Inputs(
        streams={"audio": (1, audio), "frame": (1, video)}, word_dim=words, base_classes=classes, way=classes
    )


def stream(x: Tensor, mask: Tensor | None = None) -> Stream:
    """Clips [M, D] or [M, T, D] as a Stream; mask: which steps [M, T] are valid, a prefix of them."""
    x = x[:, None] if x.ndim == 2 else x
    length = torch.full((len(x),), x.shape[1]) if mask is None else (mask > 0).sum(1)
    return Stream(x, torch.ones(len(x), dtype=torch.bool), length)


def pairs(case: Case, ending: str = "", label: Tensor | None = None) -> Pairs:
    """The pairs of the inputs whose names end so."""
    given = case.inputs
    label = torch.zeros(len(given[f"audio{ending}"]), dtype=torch.int64) if label is None else label
    return Pairs(
        stream(given[f"audio{ending}"]), stream(given[f"video{ending}"]), given[f"word{ending}"], label
    )


def load(head: nn.Module, params: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, str]:
    """Gives the head the official parameters; names: official beginnings and ours. Returns official names by ours."""
    theirs = {}
    for official in params:
        for begin, ours in names.items():
            if official.startswith(begin):
                theirs[ours + official.removeprefix(begin)] = official
    state = head.state_dict()
    state |= {ours: params[official] for ours, official in theirs.items()}
    head.load_state_dict(state)
    return theirs


def gradients(head: nn.Module, loss: Tensor, case: Case, theirs: Mapping[str, str]) -> dict[str, Tensor]:
    """The gradients of the loss that the case holds, by official names."""
    ours: dict[str, Any] = {official: name for name, official in theirs.items()}
    own = dict(head.named_parameters())
    wanted = [name for name in case.wanted("grad.") if name in ours]
    found = torch.autograd.grad(loss, [own[ours[name]] for name in wanted], retain_graph=True)
    return {f"grad.{name}": value for name, value in zip(wanted, found)}


SEQUENCE = {
    "A_enc.fc.": "sequence.audio_net.",
    "V_enc.fc.": "sequence.video_net.",
    "position_encoder_block.fourier_randn": "sequence.place.frequency",
    "position_encoder_block.modal_embedding.": "sequence.place.modality.",
    "position_encoder_block.pad_embedding.": "sequence.place.padding.",
    "position_encoder_block.time_embedding.": "sequence.place.table.",
    "position_encoder_block.fourier_embeddings.": "sequence.place.mix.",
    "position_encoder_block.out_proj_audio.": "sequence.join_audio.",
    "position_encoder_block.out_proj_video.": "sequence.join_video.",
    "cls_token": "sequence.class_token",
    "O_proj.fc.": "project.",
}
_BLOCK = {"attn.to_out.0.": "out.", "ff.net.0.": "widen.", "ff.net.3.": "narrow.", "norm.": "norm."}


def sequence_names(depth: int) -> dict[str, str]:
    """Official beginnings and ours of the transformer's parameters, but for the queries, keys and values."""
    return SEQUENCE | {
        f"Audio_visual_transformer.layers.{i}.{theirs}": f"sequence.blocks.{i}.{ours}"
        for i in range(depth)
        for theirs, ours in _BLOCK.items()
    }


def sequence_params(params: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The official parameters as ours are shaped; queries, keys and values become one under our name."""
    ours = {name: value for name, value in params.items() if not name.startswith("audiovisual_embeddings.")}
    for name in ("out_proj_audio", "out_proj_video"):
        key = f"position_encoder_block.{name}.weight"
        ours[key] = ours[key][..., 0]
    ours["cls_token"] = ours["cls_token"].flatten()
    for i in range(depth):
        begin = f"Audio_visual_transformer.layers.{i}.attn"
        ours[f"{OWN}sequence.blocks.{i}.qkv.weight"] = torch.cat(
            [ours.pop(f"{begin}.to_{k}.weight") for k in "qkv"]
        )
    return ours


OWN = "ours:"  # What a name begins with that is ours already.


def sequence_gradients(
    head: nn.Module, loss: Tensor, case: Case, theirs: Mapping[str, str]
) -> dict[str, Tensor]:
    """The gradients that the case holds, by official names and in official shapes."""
    found = gradients(head, loss, case, theirs)
    own = dict(head.named_parameters())
    for name in case.wanted("grad."):
        if ".attn.to_" in name and name.split(".to_")[1][0] in "qkv":
            block = name.split(".")[2]
            whole = own[f"sequence.blocks.{block}.qkv.weight"]
            part = "qkv".index(name.split(".to_")[1][0])
            (slope,) = torch.autograd.grad(loss, [whole], retain_graph=True)
            found[f"grad.{name}"] = slope.chunk(3)[part]
    return {name: value.view(case.expected[name].shape) for name, value in found.items()}
