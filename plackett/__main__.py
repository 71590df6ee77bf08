"""`python -m plackett`: the command `plackett`, where no such command is installed."""

import sys

try:
    from plackett.cli import main
except ModuleNotFoundError as missing:
    sys.exit(f"plackett: the package {missing.name} is missing: pip install httpx tqdm")

sys.exit(main())
