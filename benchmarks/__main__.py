"""``make bench``: every benchmark, one table after another."""

from __future__ import annotations

import torch

from . import episodes
from .table import print_rows


def main() -> None:
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians; ratios matter, not the figures."
    )
    print_rows("Episodes: 5-way 5-shot 15-query, D = 512, 20 classes x 600 clips", episodes.run())


if __name__ == "__main__":
    main()
