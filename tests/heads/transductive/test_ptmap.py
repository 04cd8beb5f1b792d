"""PT-MAP: marginals of the transport, agreement with a loop of single episodes, absent queries apart."""

from __future__ import annotations

import pytest
import torch
from metric_support import inputs, random_episodes, some_queries, without_queries

from fsmm.episodes.batch import Episodes
from fsmm.errors import UsageError
from fsmm.heads.parts.task import Task, encoded_task
from fsmm.heads.transductive.ptmap import PTMAP, PTMAPSettings


def transformed(head: PTMAP, episodes: Episodes) -> Task:
    return head.centred(encoded_task(episodes, head.encode))


def test_rows_and_columns_of_the_transport() -> None:
    head = PTMAP(inputs(), PTMAPSettings())
    task = transformed(head, random_episodes())
    share = head.shares(task, task.means())
    # rows are scaled before columns, and the loop ends when their sums hardly change from round to round
    torch.testing.assert_close(share.sum(2), torch.ones(3, 12, dtype=torch.float64), rtol=0, atol=5e-3)
    torch.testing.assert_close(share.sum(1), torch.full((3, 4), 3.0, dtype=torch.float64))


def test_scaling_the_plan_itself_gives_the_same() -> None:
    head = PTMAP(inputs(), PTMAPSettings())
    task = transformed(head, random_episodes(batch=1))
    centre = task.means()
    plan = torch.exp(-10 * (task.query[0, :, None] - centre[0, None]).square().sum(-1))
    plan, before = plan / plan.sum(), torch.zeros(12, dtype=torch.float64)
    while (before - plan.sum(1)).abs().max() > 1e-6:
        before = plan.sum(1)
        plan = plan / before[:, None]
        plan = plan * (3.0 / plan.sum(0))
    torch.testing.assert_close(head.shares(task, centre)[0], plan)


def test_a_batch_is_its_episodes() -> None:
    episodes, head = random_episodes(batch=5, spread=1.5), PTMAP(inputs(), PTMAPSettings())
    whole = head(episodes)
    for b in range(5):
        torch.testing.assert_close(whole[b : b + 1], head(episodes.slice(b, b + 1)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("balanced", [True, False])
def test_an_absent_query_is_as_if_it_were_not_asked(balanced: bool) -> None:
    episodes = random_episodes()
    gone = torch.zeros(3, 12, dtype=torch.bool)
    gone[:, 8:] = True
    head = PTMAP(inputs(), PTMAPSettings(balanced=balanced))
    torch.testing.assert_close(head(without_queries(episodes, gone))[:, :8], head(some_queries(episodes, 8)))


def test_negative_features_keep_their_sign() -> None:
    episodes = random_episodes()
    head = PTMAP(inputs(), PTMAPSettings())
    here = transformed(head, episodes)
    for stream in (*episodes.support.values(), *episodes.query.values()):
        stream.x.neg_()
    torch.testing.assert_close(transformed(head, episodes).query, -here.query)


def test_an_unknown_stop_is_refused() -> None:
    with pytest.raises(UsageError, match="Known: batch, each"):
        PTMAP(inputs(), PTMAPSettings(stop="never"))
