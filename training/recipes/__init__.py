"""One module per training loop, each run with ``python -m training.recipes.NAME``; ``configs`` holds their flags."""
