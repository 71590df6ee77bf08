"""MLflow's own server on a database in a folder, over HTTP: `python -m tests.training.django.mlflow_server FOLDER`.

Werkzeug in the place of MLflow's four web processes; it prints its port and ends with its standard input.
"""

import os
import sys
import threading

FOLDER = sys.argv[1] if len(sys.argv) > 1 else ""


def main() -> None:
    """Serve until standard input ends."""
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{FOLDER}/mlflow.db"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = f"{FOLDER}/artifacts"
    from mlflow.server import app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    app.test_client().get("/api/2.0/mlflow/experiments/get-by-name?experiment_name=none")  # makes the database
    print(server.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
