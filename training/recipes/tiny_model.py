"""``python -m training.recipes.tiny_model --output DIR``: a random two-layer model for tests and first tries."""

import argparse
import sys
from pathlib import Path

from training.core.local_models import LocalModelError, make_tiny_model


def main(arguments: list[str] | None = None) -> int:
    """Draw the model and print its folder; 0 done (or already there), 2 not possible here."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes.tiny_model", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write (kept if it holds a model)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    options = parser.parse_args(arguments)
    try:
        print(make_tiny_model(options.output, seed=options.seed))
    except LocalModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
