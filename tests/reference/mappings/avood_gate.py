"""The gate of AV-OOD-GZSL: logits, both terms of the loss, entropies, and the accuracy behind the gate."""

from __future__ import annotations

import torch
from case import Case
from torch import Tensor

from fsmm.heads.parts.entropy_gate import EntropyGate

NAMES = {"fc1": "layers.0", "fc2": "layers.1", "classifier": "layers.2"}


def outputs(case: Case) -> dict[str, Tensor]:
    given, params = case.inputs, case.params
    widths = [len(params[f"{name}.bias"]) for name in NAMES]
    gate = EntropyGate(given["train"].shape[1], widths[2], (widths[0], widths[1])).double()
    ours = {name: NAMES[name.split(".")[0]] + "." + name.split(".")[1] for name in params}
    gate.load_state_dict({ours[name]: value for name, value in params.items()})
    half = len(given["train_labels"])
    seen, unseen = gate.losses(given["train"][:half], given["train_labels"], given["train"][half:])
    entropy = gate.entropy(given["test"]).detach()
    passed = entropy < given["threshold"]
    right = passed & (given["test_prediction"] == given["test_labels"])
    own = dict(gate.named_parameters())
    wanted = [name for name in ours if name in case.wanted("grad.")]
    slopes = torch.autograd.grad(seen + unseen, [own[ours[name]] for name in wanted])
    classes = given["test_labels"].unique()
    return {
        "logits": gate(given["train"]),
        "loss": seen + unseen,
        "loss_seen": seen,
        "loss_unseen": unseen,
        "entropy": entropy,
        "seen_rate": passed.double().mean(),
        "gated_per_class_accuracy": torch.stack(
            [right[given["test_labels"] == c].double().mean() for c in classes]
        ).mean(),
        **{f"grad.{name}": slope for name, slope in zip(wanted, slopes)},
    }
