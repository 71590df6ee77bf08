"""English: plain and the same everywhere."""
