"""AV-DIFF: probabilities of base classes, tokens, generated tokens, and the losses of both phases with their terms."""

from __future__ import annotations

import torch
from audio_visual_case import OWN, inputs, load, sequence_gradients, sequence_names, sequence_params, stream
from case import Case
from torch import Tensor

from fsmm.heads.build import build_head
from fsmm.heads.embedding.audio_visual import Pairs
from fsmm.heads.embedding.avdiff import AVDIFF

NAMES = {"classifier.": "classifier.", "generator.fc.": "diffusion.net.", OWN: ""}


def build(case: Case) -> tuple[AVDIFF, dict[str, str]]:
    meta = case.meta
    settings = {
        "audio": "audio",
        "rescale": False,
        "dim": meta["out"],
        "token": meta["dim"],
        "hidden": meta["hid"],
        "project_hidden": len(case.params["O_proj.fc.0.bias"]),
        "depth": meta["depth"],
        "within": meta["change"],
        "heads": meta["heads"],
        "head_dim": meta["dh"],
        "feed_forward": meta["mlp"],
        "place": meta["emb"],
        "encoder_dropout": 0,
        "dropout": 0,
        "steps": meta["steps"],
        "generator": meta["gen"],
        "generator_layers": meta["layers"],
        "released_inputs": True,
    }
    widths = [case.inputs[k].shape[-1] for k in ("audio", "video", "word")]
    head = build_head(
        "avdiff", inputs(*widths, classes=meta["C"]), {key: str(value) for key, value in settings.items()}
    )
    assert isinstance(head, AVDIFF)
    head = head.double()
    # The variances of the noise are no official parameter; in single precision they would be off.
    head.diffusion.beta = torch.linspace(1e-4, 0.02, meta["steps"], dtype=torch.float64)
    params = sequence_params(case.params, meta["depth"])
    return head, load(head, params, {**NAMES, **sequence_names(meta["depth"])})


def outputs(case: Case) -> dict[str, Tensor]:
    given = case.inputs
    head, theirs = build(case)
    pairs = Pairs(
        stream(given["audio"], given["audio_mask"]),
        stream(given["video"], given["video_mask"]),
        given["word"],
        given["labels"],
    )
    times = given["audio_time"], given["video_time"]
    head.eval()
    with torch.no_grad():
        probability = head.classifier(head.tokens(pairs.audio, pairs.video, times)).softmax(-1)
    head.train()
    token = head.tokens(pairs.audio, pairs.video, times)
    fake = head.diffusion.sample(pairs.word, given["sample_noise"].transpose(0, 1))
    noise = {"step": given["loss_step"], "noise": given["loss_noise"]}
    base = head.losses(token, pairs, **noise, fake=None)
    novel = head.losses(token, pairs, **noise, fake=fake)
    return {
        "eval_probability": probability,
        "train_theta_o": token,
        "train_theta_o_fake": fake,
        "loss_base": base.total,
        "loss_base_generator": base.parts["diffusion"],
        "loss_base_ce": base.parts["ce"],
        "loss_novel": novel.total,
        "loss_novel_generator": novel.parts["diffusion"],
        "loss_novel_ce": novel.parts["ce"] + novel.parts["fake ce"],
        **sequence_gradients(head, novel.total, case, theirs),
    }
