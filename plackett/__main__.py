"""`python -m plackett`: the command `plackett`, where no such command is installed."""

import sys

from plackett.cli import main

sys.exit(main())
