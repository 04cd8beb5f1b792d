"""Imputation: the ridge regression is scikit-learn's, unseen groups choose its penalty, and neighbours are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from fsmm.heads.parts import imputation
from fsmm.heads.parts.imputation import nearest, ridge_fit

CHANCE = torch.Generator().manual_seed(0)


def draws(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=CHANCE, dtype=torch.float64)


@pytest.mark.parametrize("clips", [12, 60])
def test_the_map_is_a_ridge_regression_on_centred_sources(
    clips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer clips than numbers a source has, and with more."""
    monkeypatch.setattr(imputation, "PENALTIES", (0.03,))
    x, y = draws(clips, 20), draws(clips, 7)
    own = ridge_fit(x, y, torch.arange(clips))
    theirs = Ridge(alpha=0.03 * float((x - x.mean(0)).square().sum())).fit(x.numpy(), y.numpy())
    new = draws(5, 20)
    assert np.allclose(own(new).numpy(), theirs.predict(new.numpy()), atol=1e-9)


def test_a_linear_relation_is_found_and_an_absent_one_is_shrunk_to_the_mean() -> None:
    x, group = draws(300, 6), torch.arange(300) % 10
    linear = ridge_fit(x, x @ torch.ones(6, 2, dtype=torch.float64) + 3.0, group)
    new = draws(4, 6)
    assert torch.allclose(linear(new), new @ torch.ones(6, 2, dtype=torch.float64) + 3.0, atol=0.02)
    noise = draws(300, 2)
    assert torch.allclose(ridge_fit(x, noise, group)(new), noise.mean(0).expand(4, 2), atol=0.15)


@pytest.mark.parametrize(("clips", "width"), [(90, 6), (24, 40)])
def test_the_penalty_errs_least_on_groups_that_a_fit_has_not_seen(clips: int, width: int) -> None:
    """The same penalty is found by scikit-learn's regressions, one for each fold and penalty."""
    x, group = draws(clips, width) + 2.0, torch.arange(clips) % 9
    y = x[:, :3] @ draws(3, 4) + 3.0 * draws(clips, 4)
    errors = []
    for penalty in imputation.PENALTIES:
        errors.append(0.0)
        for fold in range(imputation.FOLDS):
            held = group % imputation.FOLDS == fold
            seen = x[~held]
            alpha = penalty * float((seen - seen.mean(0)).square().sum())
            fit = Ridge(alpha=alpha).fit(seen.numpy(), y[~held].numpy())
            errors[-1] += float(((fit.predict(x[held].numpy()) - y[held].numpy()) ** 2).sum())
    best = int(np.argmin(errors))
    assert 0 < best < len(errors) - 1, "an end of the list would be found by chance"
    alpha = imputation.PENALTIES[best] * float((x - x.mean(0)).square().sum())
    theirs = Ridge(alpha=alpha).fit(x.numpy(), y.numpy()).predict(x.numpy())
    assert np.allclose(ridge_fit(x, y, group)(x).numpy(), theirs, atol=1e-8)


def test_neighbours_are_those_of_a_slow_search_and_never_an_excluded_one() -> None:
    query, memory = draws(4, 5), draws(9, 5)
    excluded = torch.zeros(4, 9, dtype=torch.bool)
    excluded[0, :4] = True
    row, cosines = nearest(query, memory, 3, excluded)
    for i in range(4):
        each = [
            float(query[i] @ m / (query[i].norm() * m.norm())) if not excluded[i, j] else -np.inf
            for j, m in enumerate(memory)
        ]
        order = np.argsort(each)[::-1][:3]
        assert row[i].tolist() == order.tolist()
        assert np.allclose(cosines[i].numpy(), np.array(each)[order], atol=1e-6)
    assert nearest(query, memory, 50)[0].shape == (4, 9), "there are no more neighbours than clips"
