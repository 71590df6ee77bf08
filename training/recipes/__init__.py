"""One module per training loop, each run with ``python -m training.recipes.NAME``; ``configs`` holds their flags."""

import os

# torch's CPU threads spin while they wait for each other. On a machine that also serves pages, one descheduled thread
# then stops all of them: two threads were seen ten times slower than one. This must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
