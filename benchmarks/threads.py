"""How torch's CPU threads should wait for each other: alone on the machine, and beside busy neighbours.

    python -m benchmarks.threads                # four minutes on two cores

A Llama of 6 layers and SmolLM2-135M's widths, drawn at random, float32: forward and backward of 4 rows of 64 tokens
(a step of training), and forwards of 8 single tokens (what sampling is made of). Each way of waiting in processes of
its own, --rounds of each in turn; shown are medians, and each way's over that of `passive`. Neighbours are as many
processes as cores, each in an endless loop.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

WAYS: dict[str, dict[str, str]] = {
    "passive": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "passive, 10,000 turns first": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"},
    "passive, 100,000 turns first": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "100000"},
    "libgomp's default": {},
}
KNOBS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
TIMES, FORWARDS = 6, 60


def measure_here() -> dict[str, float]:
    """Runs in the child: seconds of a step and of a small forward."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    shape = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=4096,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    rows, tokens = torch.randint(0, 4096, (4, 64)), torch.randint(0, 4096, (8, 1))

    def small() -> None:
        with torch.no_grad():
            model(input_ids=tokens)

    return {
        "step": seconds_of(lambda: model(input_ids=rows, labels=rows).loss.backward(), TIMES),
        "small forward": seconds_of(small, FORWARDS),
    }


def seconds_of(act: Callable[[], None], times: int) -> float:
    """Seconds of one of several in a row, after two to warm up."""
    act(), act()
    started = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - started) / times


def measure(way: str) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name not in KNOBS} | WAYS[way]
    child = [sys.executable, "-m", "benchmarks.threads", "--child"]
    done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def busy_neighbours() -> Iterator[None]:
    """As many processes as cores, which do nothing but turn; ended by their own hand at the latest after an hour."""
    turning = "import time\nend = time.time() + 3600\nwhile time.time() < end: pass"
    found = [subprocess.Popen([sys.executable, "-c", turning]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for each in found:
            each.kill()
            each.wait()


def show(where: str, found: dict[str, list[dict[str, float]]]) -> None:
    print(f"\n{where}")
    print(f"{'':30}" + "".join(f"{name + ', ms':>22}{'':>8}" for name in ("step", "small forward")))
    base = found["passive"]
    for way, rounds in found.items():
        cells = ""
        for name in ("step", "small forward"):
            value, other = (median(each[name] for each in side) for side in (rounds, base))
            cells += f"{1000 * value:>22.1f}{value / other:>7.2f}x"
        print(f"{way:30}{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure_here()))
        return
    print(f"{os.cpu_count()} cores, load before the start {os.getloadavg()[0]:.1f}", flush=True)
    show("alone", measured(options.rounds))
    with busy_neighbours():
        show("beside busy neighbours", measured(options.rounds))


def measured(rounds: int) -> dict[str, list[dict[str, float]]]:
    """Each way's rounds, the ways in turn."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(measure(way))
    return found


if __name__ == "__main__":
    main()
