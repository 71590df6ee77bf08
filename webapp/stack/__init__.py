"""One machine: the embedded services and the supervisor behind `make run`. Nothing here imports Django."""
