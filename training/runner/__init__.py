"""Carrying out runs in a worker: claims them, starts recipes as processes, mirrors their files, never imports one.

station.py   the thread of a worker that looks for runs
attempt.py   one attempt at one run, from claim to outcome
lease.py     renewing the claim, and killing the trainer when that fails
trainer.py   the trainer's process group
prepare.py   data, base model and command line
member.py    one part in an attempt that several workers carry out
presence.py  the worker's sign of life
machine.py   processors, memory and GPUs of this machine
mirror.py    run.json, metrics.jsonl, exit.json and report.json into the database
tracking.py  metrics.jsonl to TensorBoard's files and to MLflow
mlflow.py    a run as an MLflow server has it
telling.py   tokens.jsonl of a try into Redis, and its result
"""
