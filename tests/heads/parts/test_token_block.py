"""The shared transformer block: against torch's own attention, masks, identity start; base-class losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from metric_support import random_episodes
from torch import nn
from torch.nn import functional as F

from fsmm.heads.parts.token_block import BaseClasses, TokenBlock, clip_classes


def test_the_block_is_attention_and_layers_added_in_turn() -> None:
    torch.manual_seed(0)
    block = TokenBlock(12, 4, 0, 20, start=False).double()
    own = nn.MultiheadAttention(12, 4, batch_first=True).double()
    with torch.no_grad():
        own.in_proj_weight.copy_(block.qkv.weight)
        own.in_proj_bias.zero_()
        own.out_proj.weight.copy_(block.out.weight)
        own.out_proj.bias.copy_(block.out.bias)
    x = torch.randn(3, 5, 12).double()
    valid = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    normal = block.norm(x)
    middle = x + own(normal, normal, normal, key_padding_mask=~valid)[0]
    expected = middle + block.narrow(F.gelu(block.widen(middle)))
    assert torch.allclose(block(x, valid), expected)


def test_steps_that_do_not_exist_change_nothing() -> None:
    torch.manual_seed(0)
    block = TokenBlock(8, 2, 4, 16, start=False).double()
    x = torch.randn(2, 6, 8).double()
    valid = (torch.arange(6) < 4).expand(2, -1)
    other = torch.where(valid[..., None], x, torch.randn_like(x))
    assert torch.allclose(block(x, valid)[:, :4], block(other, valid)[:, :4])
    assert torch.allclose(block(x, valid)[:, :4], block(x[:, :4], valid[:, :4]))


def test_the_untrained_block_is_the_identity_and_an_absent_clip_is_finite() -> None:
    x = torch.randn(2, 3, 10)
    assert torch.equal(TokenBlock(10, 8, 0, 16)(x, torch.zeros(2, 3, dtype=torch.bool)), x)


def test_classes_unknown_to_the_base_do_not_compete() -> None:
    table = BaseClasses(6)
    table.known[[1, 4]] = True
    logits = torch.randn(5, 6, dtype=torch.float64)
    label = torch.tensor([1, 4, 4, 1, 2])
    found = table.cross_entropy(logits, label, torch.tensor([True, True, False, True, True]))
    expected = F.cross_entropy(logits[[0, 1, 3]][:, [1, 4]], torch.tensor([0, 1, 0]))
    assert float(found) == pytest.approx(float(expected))


def test_every_clip_is_given_its_class() -> None:
    task = replace(random_episodes(batch=2, ways=3), class_id=torch.tensor([[7, 2, 5], [1, 0, 9]]))
    task.query_label[1, 4] = -1
    truth, counted = clip_classes(task)
    assert truth[0, :6].tolist() == [7, 7, 2, 2, 5, 5]
    assert not counted[1, 6 + 4]
    for b in range(2):
        for i, label in enumerate(task.query_label[b].tolist()):
            if label >= 0:
                assert truth[b, 6 + i] == task.class_id[b, label]
