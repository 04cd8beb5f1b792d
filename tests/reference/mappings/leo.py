"""deepmind/leo: official linear weights are [in, out]; the noise of training is stored with the outputs."""

from __future__ import annotations

import torch
from case import ONLY, Case, one_task
from torch import Tensor

from fsmm.heads.adaptation.leo import LEO, LEOSettings
from fsmm.heads.head import Inputs
from fsmm.heads.parts.losses import cross_entropy

NAMES = {
    "encoder.weight": "encoder/linear/w",
    "relation.0.weight": "relation_network/mlp/linear_0/w",
    "relation.1.weight": "relation_network/mlp/linear_1/w",
    "relation.2.weight": "relation_network/mlp/linear_2/w",
    "decoder.weight": "decoder/linear/w",
    "inner_rate": "leo_inner/lr",
    "finetuning_rate": "finetuning/lr",
}


def build(case: Case) -> LEO:
    meta = case.meta
    own = LEOSettings(
        latent=meta["num_latents"], inner_steps=meta["inner_unroll_length"], inner_rate=meta["inner_lr_init"],
        finetuning_steps=meta["finetuning_unroll_length"], finetuning_rate=meta["finetuning_lr_init"],
        kl=meta["kl_weight"], penalty=meta["encoder_penalty_weight"], l2=meta["l2_penalty_weight"],
        orthogonality=meta["orthogonality_penalty_weight"], dropout=meta["dropout_rate"], principal=False,
    )  # fmt: skip
    head = LEO(Inputs(streams={ONLY: (1, case.inputs["support"].shape[-1])}, way=meta["way"]), own).double()
    head.load_state_dict({ours: from_official(case.params[theirs]) for ours, theirs in NAMES.items()})
    return head


def from_official(value: Tensor) -> Tensor:
    """[in, out] to [out, in]; rates [1, 1, n] to [n]."""
    return value.flatten() if value.ndim == 3 else value.T.contiguous()


def outputs(case: Case) -> dict[str, Tensor]:
    support, query = case.inputs["support"], case.inputs["query"].flatten(0, 1)
    episodes = one_task(support, query, case.inputs["query_labels"].flatten())
    label = episodes.query_label
    present = torch.ones(1, *support.shape[:2], dtype=torch.bool)
    stored = sorted(case.wanted("train_noise_"), key=int)
    given: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        head = build(case).train(mode == "train")
        noise = iter([case.expected[f"train_noise_{i}"] for i in stored])
        used: list[Tensor] = []

        def draw(like: Tensor) -> Tensor:
            used.append(next(noise))  # noqa: B023
            return used[-1].expand_as(like)  # noqa: B023

        adapted = head.adapt(support[None], present, draw if mode == "train" else None)
        logits = head._logits(episodes, adapted)
        losses = head.objective(cross_entropy(logits, label), adapted)
        losses.total.backward()
        right = (logits.argmax(-1) == label).double().mean()
        given |= {f"{mode}_loss": losses.total, f"{mode}_val_accuracy": right,
                  f"{mode}_adapted_weights_before_finetuning": adapted.before[0]}  # fmt: skip
        given |= {f"{mode}_noise_{i}": value for i, value in enumerate(used)}
        for ours, theirs in NAMES.items():
            value = head.get_parameter(ours).grad
            if value is None:  # a rate of no steps
                value = torch.zeros_like(head.get_parameter(ours))
            given[f"grad.{mode}.{theirs}"] = value.view(1, 1, -1) if value.ndim == 1 else value.T
    return given
