"""The only Celery task of training is the doorbell; a worker's station does the work, see training.runner.

The station lives in the worker's main process, which is the one that hears SIGTERM. Workers of the run queues use
`--pool threads`, so that the doorbell rings in that process too; with a forked pool runs would start up to 15 s later.
"""

from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from training.runner.station import Station
from training.services.doorbell import RING

STOP_SECONDS = 18

_stations: list[Station] = []


@shared_task(name=RING, ignore_result=True)
def ring() -> None:
    """Something may wait in a queue of this worker."""
    for station in _stations:
        station.ring()


@worker_ready.connect
def open_station(sender: Any, **_: Any) -> None:
    """Starts looking for runs; the web imports this module too, but only a worker ever gets here."""
    if not _stations:
        station = Station(queues=list(sender.app.amqp.queues.consume_from), worker=str(sender.hostname))
        _stations.append(station)
        station.open()


@worker_shutting_down.connect
def close_stations(**_: Any) -> None:
    """SIGTERM has come: trainers are ended and their runs go back to their queues while Celery winds down."""
    for station in _stations:
        station.close()


@worker_shutdown.connect
def wait_for_stations(**_: Any) -> None:
    """The worker's last act; the time is within what whoever stops it waits."""
    for station in _stations:
        station.close()
        station.join(STOP_SECONDS)
