"""``python -m fsmm`` is the same as the ``fsmm`` command."""

from .cli import main

if __name__ == "__main__":
    main()
