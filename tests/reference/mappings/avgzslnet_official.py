"""AVGZSLNet as in its authors' code: embeddings, both parts of the loss and their sum."""

from __future__ import annotations

from audio_visual_case import gradients, inputs, pairs
from case import Case
from torch import Tensor
from torch.nn import functional as F

from fsmm.episodes.batch import Stream
from fsmm.heads.embedding.audio_visual import Pairs
from fsmm.heads.embedding.avgzslnet import AVGZSLNet, AVGZSLNetSettings

NETS = {"audio_net.layers": "audio_net", "video_net.layers": "video_net", "text_net.layers": "word_net"}


def build(case: Case) -> tuple[AVGZSLNet, dict[str, str]]:
    meta = case.meta
    settings = AVGZSLNetSettings(
        audio="audio",
        rescale=False,
        dim=meta["t"][-1],
        audio_hidden=tuple(meta["a"][1:-1]),
        video_hidden=tuple(meta["v"][1:-1]),
        word_hidden=tuple(meta["t"][1:-1]),
        decoder_hidden=meta["dec_hidden"],
        dropout=0.0,
        margin=meta["margin"],
    )
    head = AVGZSLNet(inputs(meta["a"][0], meta["v"][0], meta["t"][0]), settings).double()
    theirs = {}
    for official in case.params:
        net, place, part = official.rsplit(".", 2)
        # Our networks number the ReLU and the dropout after a linear layer, too.
        ours = f"decoder.{3 * (int(place) // 2)}" if net == "dec" else f"{NETS[net]}.{3 * int(place)}"
        theirs[f"{ours}.{part}"] = official
    head.load_state_dict({ours: case.params[official] for ours, official in theirs.items()})
    return head, theirs


def read(case: Case, ending: str) -> Pairs:
    given = pairs(case, ending)
    if not case.meta["normalize"]:
        return given

    def unit(stream: Stream) -> Stream:
        return Stream(F.normalize(stream.x, dim=-1), stream.present, stream.length)

    return Pairs(unit(given.audio), unit(given.video), F.normalize(given.word, dim=-1), given.label)


def outputs(case: Case) -> dict[str, Tensor]:
    head, theirs = build(case)
    right, wrong = read(case, ""), read(case, "_neg")
    own, other = head._embedded(right), head._embedded(wrong)
    composite = head.composite(own, other)
    decoded = head.reconstruction(own, other, right.word)
    loss = composite + decoded
    return {
        "pos_audio": own.heard,
        "pos_video": own.seen,
        "pos_text": own.named,
        "neg_audio": other.heard,
        "loss_composite": composite,
        "loss_cmd": decoded,
        "loss": loss,
        **gradients(head, loss, case, theirs),
    }
