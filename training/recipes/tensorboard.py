"""``python -m training.recipes.tensorboard DIR``: a run's metrics as TensorBoard event files, in DIR/tensorboard.

DIR is the --output of a recipe. Called again it writes what has been added; of a run that was resumed TensorBoard shows
the steps that were cut off and done again once. Runs of the web application have their event files without it.
"""

import argparse
import sys
import time
from pathlib import Path

from training.core.event_files import EventFolder
from training.core.following import METRICS_NAME, RUN_NAME, Follower

LOOK_EVERY_SECONDS = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Write the files and print their folder; 0 done, 2 not possible."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes.tensorboard", description=__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the --output of a recipe")
    parser.add_argument("--follow", action="store_true", help="go on with what is added, until Ctrl-C")
    options = parser.parse_args(arguments)
    if not options.follow and not all((options.folder / name).is_file() for name in (RUN_NAME, METRICS_NAME)):
        print(f"error: {options.folder} has no {RUN_NAME} and {METRICS_NAME} of a recipe", file=sys.stderr)
        return 2
    events = EventFolder(options.folder / "tensorboard")
    follower = Follower(options.folder, events)
    print(events.folder, flush=True)
    try:
        while follower.follow() or options.follow:
            time.sleep(LOOK_EVERY_SECONDS if options.follow else 0)
    except KeyboardInterrupt:
        pass
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        events.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
