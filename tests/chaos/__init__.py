"""Killing what a run stands on, in the middle of it, and looking whether anything was lost.

prepare.py    what a fresh stack needs before a run can start
ground.py     a whole stack of its own under its own supervisor: starting runs, asking for them, killing a part
census.py     who is at work in a run's folder, all the time
timeline.py   when each step was logged, and a random moment between the first and the last
trial.py      one run, undisturbed or with one kill
verdict.py    what must hold of a run that was disturbed
__main__.py   `python -m tests.chaos`: many trials, a table and a log; a few of them stand in test_seeded.py
"""
