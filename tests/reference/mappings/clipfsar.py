"""CLIP-FSAR behind its encoders: training with the words of base classes, testing with those of test classes."""

from __future__ import annotations

from dataclasses import replace

import torch
from case import ONLY, Case, by_class, one_task, query_classes
from torch import Tensor

from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Inputs
from fsmm.heads.language.clipfsar import CLIPFSAR, CLIPFSARSettings


def layers(case: Case) -> int:
    return 1 + max(int(name.split(".")[2]) for name in case.params if name.startswith("context2.layers."))


def state(case: Case) -> dict[str, Tensor]:
    """Our parameters from the official ones; the official q, k and v are one layer here."""
    p, ours = case.params, {"temperature": case.params["scale"].double()}
    for i in range(layers(case)):
        theirs, mine = f"context2.layers.{i}", f"blocks.{i}"
        ours[f"{mine}.qkv.weight"] = torch.cat([p[f"{theirs}.0.fn.to_{k}.weight"] for k in "qkv"])
        for part in ("weight", "bias"):
            ours[f"{mine}.norm.{part}"] = p[f"{theirs}.0.norm.{part}"]
            ours[f"{mine}.out.{part}"] = p[f"{theirs}.0.fn.to_out.0.{part}"]
            ours[f"{mine}.widen.{part}"] = p[f"{theirs}.1.net.0.{part}"]
            ours[f"{mine}.narrow.{part}"] = p[f"{theirs}.1.net.3.{part}"]
    text = case.inputs["text_train"]
    return ours | {"words": text, "base.known": torch.ones(len(text), dtype=torch.bool)}


def build(case: Case, mode: str = "visual", share: float = 0.9) -> CLIPFSAR:
    meta, text = case.meta, case.inputs["text_train"]
    steps, dim = case.inputs["support"].shape[1:]
    own = CLIPFSARSettings(
        mode=mode,
        coefficient=share,
        merge="before" if meta["merge_before"] else "after",
        gamma=float(meta["otam_lbda"]),
        single_direct=bool(meta.get("single_direct", False)),
        depth=layers(case),
        heads=meta["heads"],
        width=0,
        hidden=meta["mlp_dim"],
        class_weight=float(meta["cls_weight"]),
        rescale=False,
        classes=len(text),
        start=False,
    )
    head = CLIPFSAR(Inputs(streams={ONLY: (steps, dim)}, word_dim=text.shape[1]), own).double()
    head.load_state_dict(state(case))
    return head.eval()


def task(case: Case, words: Tensor) -> Episodes:
    given = case.inputs
    label = given["support_labels"]
    made = one_task(by_class(given["support"], label), given["query"],
                    query_classes(case))  # fmt: skip
    classes = by_class(given["support_global"], label)[:, 0]
    return replace(made, class_id=classes[None], words=words[classes][None])


def outputs(case: Case) -> dict[str, Tensor]:
    text_train, text_test = case.inputs["text_train"], case.inputs["text_test"]
    head, train = build(case), task(case, text_train)
    loss = head.loss(train).total
    loss.backward()
    label = case.inputs["support_labels"]
    every = head.class_logits(train.support[ONLY], train.query[ONLY], text_train)[0]
    order = torch.argsort(torch.argsort(label, stable=True))  # back to the official order of supports
    test = task(case, text_test)
    given = {
        "train_logits": head(train)[0],
        "train_class_logits": torch.cat([every[: len(label)][order], every[len(label) :]]),
        "train_loss": loss,
        "eval_otam_logits": head(test)[0],
        "eval_text_logits": build(case, "text")(test)[0].softmax(-1),
    }
    # products of posteriors: our logits are their logarithms
    shares = case.meta["text_coff"]
    names = [n for n in case.expected if n.startswith("eval_combine")]
    for name in names:
        share = shares[int(name != "eval_combine_logits")] or 0.9  # the released code reads 0 as unset
        given[name] = build(case, "combined", share)(test)[0].exp()
    return given | gradients(head)


def gradients(head: CLIPFSAR) -> dict[str, Tensor]:
    """By official names."""
    given = {}
    for name, value in head.named_parameters():
        if value.grad is None:
            continue
        if name == "temperature":
            given["grad.scale"] = value.grad
        elif name.endswith("qkv.weight"):
            layer = name.split(".")[1]
            for k, part in zip("qkv", value.grad.chunk(3)):
                given[f"grad.context2.layers.{layer}.0.fn.to_{k}.weight"] = part
    return given
