"""One PPO step of Plackett, measured in a process of its own: our side of ``benchmarks.ppo``.

    python -m benchmarks.ppo_ours --model DIR --reward DIR --prompts FILE.jsonl --lora-rank 0 --micro-batch 8

The process is told what a recipe's is: how threads wait. Prints one JSON line. Responses are exactly as long as the
limit: nothing ends them, on either side.
"""

import argparse
import ctypes
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

PROMPT, RESPONSE, PROMPTS, INNER_EPOCHS = 64, 64, 32, 4
WARM_UP_PROMPTS = 2


def prepare_run(options: argparse.Namespace, folder: Path) -> Any:
    """A run of the recipe, right before its first step, that no response ends early in."""
    from training.recipes.configs import PpoConfig, build
    from training.recipes.launch import Session
    from training.recipes.loop import Progress
    from training.recipes.ppo import PpoRun
    from training.recipes.ppo_setup import check_inputs, prepare

    values = {
        "model": options.model, "data": options.prompts, "output": str(folder), "reward_model": options.reward,
        "batch_size": options.count, "max_response_length": RESPONSE, "inner_epochs": INNER_EPOCHS, "device": "cpu",
        "lora_rank": options.lora_rank, "learning_rate": options.learning_rate, "schedule": "constant", "warmup": 0.0,
        "micro_batch_tokens": options.micro_batch * (PROMPT + RESPONSE), "missing_eos_penalty": 0.0, "max_steps": 2,
    }  # fmt: skip
    session = Session("ppo", build(PpoConfig, values), folder)
    prepared = prepare(session, check_inputs(session))
    for sampler in (prepared.models.sampler, prepared.models.reference_sampler):
        sampler.settings = replace(sampler.settings, stop_ids=frozenset())
        sampler.budget.tokens = PROMPTS * (PROMPT + RESPONSE)
    return PpoRun(session, prepared, None, None, Progress())


def warm_up(run: Any) -> None:
    """All that a step does, over a few prompts."""
    from training.recipes.ppo_learn import learn
    from training.recipes.ppo_lesson import make_lesson
    from training.recipes.ppo_rollout import make_rollout

    rollout = make_rollout(run.session, run.models, run.prepared.data.train, list(range(WARM_UP_PROMPTS)), 0)
    lesson = make_lesson(run.session.config, rollout, kl_coefficient=0.05, scale=None)
    for group in run.models.optimizer.param_groups:
        group["lr"] = 0.0
    learn(run.session, run.models, lesson, step=0, kl_coefficient=0.05, ptx=None)


def mean_score(run: Any, reward: Path) -> float:
    """Of responses to all prompts, by the policy as it is now; as the reward model says it, our zero not taken off."""
    from training.recipes.answering import score_together
    from training.recipes.ppo_rollout import sample_responses

    sampled = sample_responses(
        run.session,
        run.models,
        run.prepared.data.train,
        list(range(len(run.prepared.data.train))),
        purpose="benchmark",
        step=0,
        each=1,
    )
    zero = json.loads((reward / "model" / "config.json").read_text())["plackett_score_mean"]
    return fmean(score_together(run.session, run.models.sources, sampled).total) + float(zero)


def bare_generate(run: Any) -> float:
    """Seconds of plain ``generate`` on the same prompts: sampling, one batch, as many tokens."""
    import torch

    ids = torch.tensor([run.prepared.data.train.ids(number) for number in range(len(run.prepared.data.train))])
    whole = run.models.policy.whole
    before = whole.generation_config
    whole.eval()
    started = time.perf_counter()
    with torch.no_grad():
        whole.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=RESPONSE,
            min_new_tokens=RESPONSE, pad_token_id=0,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    whole.train()
    whole.generation_config = before
    return seconds


@contextmanager
def backward_timed() -> Iterator[list[float]]:
    """Seconds of each backward pass within."""
    import torch

    found, plain = [], torch.Tensor.backward

    def timed(*inputs: Any, **settings: Any) -> None:
        started = time.perf_counter()
        plain(*inputs, **settings)
        found.append(time.perf_counter() - started)

    torch.Tensor.backward = timed  # type: ignore[assignment, method-assign]
    try:
        yield found
    finally:
        torch.Tensor.backward = plain  # type: ignore[method-assign]


def arithmetic(run: Any) -> dict[str, float]:
    """Floating-point operations of a step's matrix products, in units of 10^12, before and in the inner epochs.

    Counted on two prompts and multiplied: products grow with the prompts, and these are all of one length. Attention's
    own are left out, a few in a hundred here.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from training.recipes.ppo_learn import learn
    from training.recipes.ppo_lesson import make_lesson
    from training.recipes.ppo_rollout import make_rollout

    def added(a: Any, b: Any, c: Any, *_: Any, **__: Any) -> int:
        return int(2 * b[0] * b[1] * c[1])

    times = len(run.prepared.data.train) / WARM_UP_PROMPTS / 1e12
    counted = {torch.ops.aten.addmm_: added}
    with FlopCounterMode(display=False, custom_mapping=counted) as rollout_counter:
        rollout = make_rollout(run.session, run.models, run.prepared.data.train, list(range(WARM_UP_PROMPTS)), 2)
    lesson = make_lesson(run.session.config, rollout, kl_coefficient=0.05, scale=None)
    with FlopCounterMode(display=False, custom_mapping=counted) as learning_counter:
        learn(run.session, run.models, lesson, step=2, kl_coefficient=0.05, ptx=None)
    return {
        "rollout": rollout_counter.get_total_flops() * times, "learn": learning_counter.get_total_flops() * times,
        "per_second": product_rate() / 1e12,
    }  # fmt: skip


def product_rate(*, tokens: int = 1024, inner: int = 576, outer: int = 1536, times: int = 200) -> float:
    """Floating-point operations a second of a feed-forward layer's product in SmolLM2-135M, on eight rows at once."""
    import torch

    states, weight = torch.randn(tokens, inner), torch.randn(outer, inner)
    out = states @ weight.T
    started = time.perf_counter()
    for _ in range(times):
        torch.mm(states, weight.T, out=out)
    return 2 * tokens * inner * outer * times / (time.perf_counter() - started)


def memory_now(field: str) -> float:
    """A field of this process's status (VmRSS, VmHWM), in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--reward", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--count", type=int, default=PROMPTS, help="prompts")
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--micro-batch", type=int, default=8, help="rows at once")
    parser.add_argument("--learning-rate", type=float, default=3e-6)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    from training.recipes.launch import settle_process  # before torch: says how its threads wait

    settle_process()
    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        run = prepare_run(options, Path(scratch))
        warm_up(run)
        before = mean_score(run, Path(options.reward))
        bare = bare_generate(run)
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        started = time.perf_counter()
        with backward_timed() as backward:
            row = run.take_step(1).row
        seconds = time.perf_counter() - started
        peak = memory_now("VmHWM")
        after = mean_score(run, Path(options.reward))
        products = arithmetic(run)
    phases = {name: row[f"time/{name}_seconds"] for name in ("sample", "score", "forward", "learn")}
    phases["learn: forward"] = phases.pop("learn") - sum(backward)
    phases["learn: backward"] = sum(backward)
    print(json.dumps({
        "seconds": seconds, "peak_mb": peak, "score_before": before, "score_after": after, "phases": phases,
        "bare_generate_seconds": bare, "products": products,
        "trunk": "shared" if run.models.trunk is not None else "separate",
    }))  # fmt: skip


if __name__ == "__main__":
    main()
