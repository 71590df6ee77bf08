"""One module per training loop, each run with ``python -m training.recipes.NAME``; ``configs`` holds their flags."""

import os

# torch's CPU threads spin while they wait for each other. On a machine that also serves pages, one descheduled thread
# then holds up the others: two threads were seen several times slower than one. Must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
