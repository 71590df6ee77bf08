"""Plackett from Python: bring prompts in, take preferences out, rank by program, start runs and wait for them.

    from plackett import Client

    client = Client("http://127.0.0.1:8000", token)
    client.push_prompts("demo", records)

Needs httpx and tqdm, nothing else of Plackett: the folder works wherever it is copied to. `plackett --help` (or
`python -m plackett --help`) is the same for a shell.
"""

from plackett.client import Client, Export, Pushed
from plackett.errors import Disconnected, PlackettError, Refused, RunFailed

__all__ = ["Client", "Disconnected", "Export", "PlackettError", "Pushed", "Refused", "RunFailed"]
