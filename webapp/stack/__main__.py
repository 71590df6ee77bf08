"""`python -m webapp.stack`: what `make run` does once the virtual environment is there."""

import sys

from webapp.stack.supervisor import main

sys.exit(main())
