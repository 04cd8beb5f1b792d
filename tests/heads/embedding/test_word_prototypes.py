"""Word prototypes against the textbook form of a ridge regression from words to class means, with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from word_support import DIM, WORD, spoken_bank, word_episodes

from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs


def fitted(**settings: Any) -> Any:
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORD, way=4)
    head = build_head("word-prototypes", inputs, {k: str(v) for k, v in settings.items()}).double()
    head.fit_base(spoken_bank())
    return head.eval()


def test_the_linear_map_without_whitening() -> None:
    base, task = spoken_bank(), word_episodes(width=WORD, batch=1)
    assert base.words is not None
    assert task.words is not None
    x = base.tables["frame"].gather(torch.arange(len(base))).pooled().numpy()
    label, words = base.label.numpy(), base.words.numpy()
    words = words / np.linalg.norm(words, axis=1, keepdims=True)
    middle = words.mean(0)

    def centred(w: np.ndarray) -> np.ndarray:
        w = w / np.linalg.norm(w, axis=-1, keepdims=True) - middle
        return w / np.linalg.norm(w, axis=-1, keepdims=True)

    s, means = centred(words), np.stack([x[label == c].mean(0) for c in range(10)]) - x.mean(0)
    slope = np.linalg.inv(s.T @ s + 0.3 * np.eye(WORD)) @ s.T @ means
    p = centred(task.words[0].numpy()) @ slope
    q = task.query["frame"].x[0, :, 0].numpy() - x.mean(0)
    near = (q @ p.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(p, axis=1)[None]
    logits = fitted(width=0, whiten="false")(task)[0]
    assert np.allclose(logits.numpy(), near / 0.1)


def test_whitened_clips_scatter_alike() -> None:
    head, base = fitted(shrinkage=0), spoken_bank()
    x = base.tables["frame"].gather(torch.arange(len(base))).pooled() - head.centre
    z = x @ head.whitening
    means = torch.stack([z[base.label == c].mean(0) for c in range(10)])
    away = z - means[base.label]
    assert torch.allclose(away.T @ away / len(away), torch.eye(DIM).double(), atol=1e-6)


def test_words_of_a_base_class_find_its_clips() -> None:
    head, base = fitted(), spoken_bank(noise=0.1)
    assert base.words is not None
    p = head.prototypes(base.words)
    x = (base.tables["frame"].gather(torch.arange(len(base))).pooled() - head.centre) @ head.whitening
    near = torch.nn.functional.cosine_similarity(x[:, None], p[None], dim=-1)
    assert float((near.argmax(1) == base.label).double().mean()) > 0.9
