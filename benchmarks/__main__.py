"""``make bench`` runs every benchmark and prints one table after another."""

from __future__ import annotations

import torch

from . import episodes, extract, heads, heads_temporal, reports, startup, sweep
from .table import Row, print_rows


def main() -> None:
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians; ratios matter, not the figures."
    )
    print_rows("Episodes: 5-way 5-shot 15-query, D = 512, 20 classes x 600 clips", episodes.run())
    print_rows("Heads: 5-way 1-shot 15-query, D = 512, 20 classes x 60 clips", heads.run())
    print_rows(
        "Temporal heads: 5-way, 15 queries a class, T = 8, D = 512, 20 classes x 30 clips",
        heads_temporal.run(),
    )
    rows = [
        Row(f"{r['stage']} {r['note']}".strip(), r["clips_per_second"] or r["value"], r["goal"] or "clips/s")
        for r in extract.run()
    ]
    print_rows("Extraction of demo clips", rows)
    print_rows(f"Start-up over {startup.CLIPS[0]:,} clips in two streams", startup.run())
    print_rows(f"Sweep of {sweep.RUNS} runs of 1,000 episodes", sweep.run())
    print_rows(f"The report of {reports.RUNS} runs of {reports.EPISODES:,} episodes", reports.rows())


if __name__ == "__main__":
    main()
