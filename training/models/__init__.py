"""Runs, their attempts and measurements, and the registry of models.

The row of a run in Postgres is the truth about it: workers claim it, renew a lease on it and write under the number of
their attempt. Moves between states, the attempt guard and lineage inside one project are triggers and composite keys:
see migration 0002.
"""

from training.models.attempts import RunAttempt, RunMember
from training.models.measurements import MetricStretch, RunMetric, RunSample, RunUse
from training.models.registry import ModelEvent, ModelVersion
from training.models.retention import Retention
from training.models.runs import Run, RunInput, Try
from training.models.workers import Worker

__all__ = [
    "MetricStretch",
    "ModelEvent",
    "ModelVersion",
    "Retention",
    "Run",
    "RunAttempt",
    "RunInput",
    "RunMember",
    "RunMetric",
    "RunSample",
    "RunUse",
    "Try",
    "Worker",
]
