"""What a response is rewarded for: reward models, checkable answers, patterns, tests and functions, one interface."""
