"""RAGPT's generator of missing tokens (MMG) and the attention of its context-aware prompter (CAP)."""

from __future__ import annotations

from case import Case
from torch import Tensor

from fsmm.heads.parts.retrieved_tokens import PromptAttention, TokenGenerator


def outputs(case: Case) -> dict[str, Tensor]:
    given, neighbours = case.params, case.inputs["neighbours"]
    tokens, width = neighbours.shape[-2:]
    generator = TokenGenerator(tokens, width).double()
    names = {"real": "W_real", "imaginary": "W_imag"}
    names |= {f"norm.{part}": f"layer_norm.{part}" for part in ("weight", "bias")}
    names |= {f"linear.{part}": f"linear.{part}" for part in ("weight", "bias")}
    generator.load_state_dict({ours: given[f"mmg.{theirs}"] for ours, theirs in names.items()})
    prompter = PromptAttention(width, case.meta["prompt"]).double()
    kinds = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    prompter.load_state_dict(
        {
            f"{ours}.{part}": given[f"cap.{theirs}.{part}"]
            for ours, theirs in kinds.items()
            for part in ("weight", "bias")
        }
    )
    return {"recovered": generator(neighbours), "prompt": prompter(case.inputs["tokens"], neighbours)}
