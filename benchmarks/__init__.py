"""What the figures in the README and the docs come from; each module runs alone with `python -m benchmarks.NAME`."""
