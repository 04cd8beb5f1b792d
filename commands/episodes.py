"""The commands ``fsmm episodes import`` and ``fsmm episodes draw``, which make files of episodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from . import completion, console
from .cache import Cache, Dataset, Json, cache_root

if TYPE_CHECKING:
    from ..cache.bank import FeatureBank
    from ..episodes.episode_file import EpisodeFile

_app = typer.Typer(
    no_args_is_help=True, help="Make files of episodes for `fsmm episode-eval --episodes-file`."
)
Out = Annotated[Path, typer.Option(help="The file that is written (npz).")]


def register(app: typer.Typer) -> None:
    app.add_typer(_app, name="episodes")


@_app.command("import")
def import_published(
    folder: Annotated[Path, typer.Argument(help="A folder with support_frame_names_1.txt and its like.")],
    out: Out,
    most: Annotated[Optional[int], typer.Option(help="Only so many episodes (else all).", min=1)] = None,
    json: Json = False,
) -> None:
    """Read the published episodes of the temporal-matching benchmark into one file."""
    from ..episodes.published import published_episodes

    _write(published_episodes(folder.expanduser(), most), out, json=json)


@_app.command("draw")
def draw(
    stream: Annotated[
        str,
        typer.Option(help="The stream whose steps are drawn.", autocompletion=completion.held_streams),
    ],
    out: Out,
    cache: Cache = None,
    dataset: Dataset = None,
    split: Annotated[str, typer.Option(help="The classes: base, val, novel or all.")] = "novel",
    class_split: Annotated[str, typer.Option(help="The class split, such as s0 or random:8:3.")] = "default",
    n_way: Annotated[int, typer.Option(help="The classes of an episode.", min=1)] = 5,
    k_shot: Annotated[int, typer.Option(help="The supports of a class.", min=1)] = 1,
    n_query: Annotated[int, typer.Option(help="The queries of a class.", min=1)] = 1,
    steps: Annotated[int, typer.Option(help="The steps that are taken of a clip.", min=1)] = 8,
    episodes: Annotated[int, typer.Option(help="The number of episodes.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="The seed of numpy's generator.", min=0)] = 1,
    json: Json = False,
) -> None:
    """Draw episodes as that benchmark does: a random step from each of so many equal parts of a clip."""
    from ..cache.bank import FeatureBank
    from ..episodes.segment_sampler import draw_with_steps

    bank = FeatureBank.load(
        cache_root(cache),
        [stream],
        split,
        dataset=dataset,
        class_split=class_split,
        words=None,
        max_steps=1 << 20,
    )
    file = draw_with_steps(
        _lengths(cache_root(cache), bank),
        episodes=episodes,
        ways=n_way,
        shots=k_shot,
        queries=n_query,
        steps=steps,
        seed=seed,
    )
    _write(file, out, json=json)


def _lengths(cache: Path, bank: FeatureBank) -> dict[str, dict[str, int]]:
    """The number of steps of each clip of a bank of one stream, by class; clips without the stream are left out."""
    from ..cache.catalog import Catalog

    ids = Catalog.read(cache / bank.dataset).clip_id
    (table,) = bank.tables.values()
    found: dict[str, dict[str, int]] = {}
    for row, label, length in zip(bank.clip_row.tolist(), bank.label.tolist(), table.length.tolist()):
        if length:
            found.setdefault(bank.class_names[label], {})[ids[row]] = length
    return found


def _write(file: EpisodeFile, out: Path, *, json: bool) -> None:
    """Write a file of episodes and say what it holds."""
    out = out.expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    file.write(out)
    told = {
        "file": str(out),
        "episodes": len(file),
        "n_way": file.ways,
        "k_shot": file.shots,
        "n_query": file.queries_a_class,
        "steps": file.steps,
        "clips": len(file.clips),
    }
    if json:
        console.print_json(told)
        return
    print(
        f"{told['episodes']:,} episodes: {told['n_way']}-way {told['k_shot']}-shot, {told['n_query']} queries a class, "
        f"{told['steps']} steps of {told['clips']:,} clips ({out})"
    )
