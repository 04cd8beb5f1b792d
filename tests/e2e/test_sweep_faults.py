"""A small fixed sample of the campaign of faults against sweeps (scripts/campaigns/sweep.py)."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fsmm.errors import UsageError
from fsmm.studies.grid.sweep import plan_study

SCRIPT = Path(__file__).parents[2] / "scripts" / "campaigns" / "sweep.py"


def load() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("sweep_campaign", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = load()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("cache")
    script.make_cache(folder)
    return folder


@pytest.mark.parametrize("name", [name for name, text in script.MISTAKES.items() if text is not None])
def test_every_mistake_is_one_sentence_before_anything_is_written(
    cache: Path, tmp_path: Path, name: str
) -> None:
    path, out = tmp_path / "faults.yaml", tmp_path / "out"
    path.write_text(script.MISTAKES[name])
    (tmp_path / "out").mkdir()
    (out / "study.json").write_text('{"name": "faults", "format": 1}')
    with pytest.raises(UsageError) as caught:
        plan_study(path, cache, out=out, jobs=1, overrides={}, device="cpu", command="")
    assert "\n" not in str(caught.value)
    assert os.listdir(out) == ["study.json"]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return script.Campaign.begun(tmp_path_factory.mktemp("campaign"), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trial",
    [
        lambda campaign: campaign.kill_sweep(0.7),
        lambda campaign: campaign.kill_worker(0.8),
        lambda campaign: campaign.corrupt("metrics.json", "cut"),
        lambda campaign: campaign.cache_removed(0.7),
        lambda campaign: campaign.clock_set_back(),
    ],
)
def test_a_sample_of_the_campaign_holds(campaign: Any, trial: Callable[[Any], None]) -> None:
    trial(campaign)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_loses_nothing_finished(campaign: Any) -> None:
    campaign.full_disk(60)
