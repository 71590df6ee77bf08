"""One module per training loop, each run with ``python -m training.recipes.NAME``; ``configs`` holds their flags."""

import gc
import os
import sys

# torch's CPU threads spin while they wait for each other. On a machine that also serves pages, one descheduled thread
# then holds up the others: two threads were seen several times slower than one. Where they sleep at once, each of a
# small model's thousands of short operations waits for the kernel to wake them. So they turn a number of times, and
# sleep then (`benchmarks.threads`). Must be set before torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Loading torch and transformers makes a million objects that stay; looking through them for garbage, again and again,
# is a fifth of a recipe's start. `launch` has the collector work again. (While Python looks for the module that `-m`
# names, which is when this runs for a recipe and for nothing else, that word stands in the place of its path.)
if sys.argv[:1] == ["-m"]:
    gc.disable()
