"""Models answer prompts, one model after the other, step by step, into ``responses.jsonl``.

What ``recipes.sample`` and ``recipes.evaluate_policy`` share. A step is a few prompts with all responses of one model
to them. What is sampled depends on the seed, the prompt's place in the file and the number of the sample alone: steps,
batches and processes leave no trace, and nothing has to be kept for a resume but the files: it goes on behind the last
step whose rows are whole. All models draw alike: where two do not differ, they say the same.
"""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.core.errors import StopRequested
from training.core.halving import MicroBatchBudget
from training.core.language import load_language_model
from training.core.modeling import choose_autocast, set_pad_token
from training.core.process import STOP_SECONDS
from training.core.reward_sources.episodes import RewardSource
from training.core.runfolder import MetricsFile, StepFile
from training.core.sampling import GenerateSampler, SamplingSettings
from training.core.tokens import settle_pad_token, stop_ids
from training.recipes.answering import Sampled, sample_together, score_together
from training.recipes.judging import SAMPLING_SHARE, load_judge, make_reading
from training.recipes.launch import Session
from training.recipes.loop import open_run
from training.recipes.prompts import Prompts
from training.recipes.questions import RESPONSES_NAME, Questions, finished_steps
from training.recipes.sampling_configs import MOST_SAMPLES, AnsweringConfig
from training.recipes.token_stream import TokenStream

SAMPLING = "sample"


@dataclass(frozen=True)
class Speaker:
    """A model in memory, with whatever scores what it says."""

    prompts: Prompts
    sampler: GenerateSampler
    sources: Mapping[str, RewardSource]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, as an episode's is made."""
        tokenizer = self.prompts.tokenizer
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def load_speaker(session: Session[Any], questions: Questions, index: int, *, judges: Mapping[str, str]) -> Speaker:
    """Load a model to sample from, and the reward models beside it.

    Args:
        judges: by the key under which rows hold their scores.

    Raises:
        UsageError: one cannot be used.
    """
    config: AnsweringConfig = session.config
    reader, name = questions.readers[index], questions.asked[index].model
    autocast = choose_autocast(config.dtype, session.device)
    model = load_language_model(name, device=session.device, autocast_dtype=autocast)
    pad_id = settle_pad_token(reader.encoder, embedding_rows=model.whole.get_input_embeddings().num_embeddings)
    set_pad_token(model, pad_id)
    model.whole.requires_grad_(False).eval()
    longest = reader.longest + config.max_response_length
    sampling, scoring = (
        MicroBatchBudget(
            tokens=share * config.micro_batch_tokens, floor=longest, world=session.world, device=session.device,
            say=session.say,
        )
        for share in (SAMPLING_SHARE, 1)
    )  # fmt: skip
    settings = SamplingSettings(
        temperature=config.temperature,
        max_length=config.max_response_length,
        stop_ids=stop_ids(reader.encoder, model.whole.generation_config),
        pad_id=pad_id,
        seed=config.seed,
    )
    sampler = GenerateSampler(model, settings, sampling, interrupted=lambda: session.stop.requested)
    prompts = Prompts(questions.file.prompts, questions.places, reader.encoder, reader.thinking_opened)
    reading = make_reading(
        session, reader.encoder, scoring, longest_prompt=reader.longest, max_response_length=config.max_response_length
    )
    flags = {"score": "--reward-model", "judge": "--judge"}
    sources = {
        key: load_judge(
            session, folder, flag=flags[key], name=key, reading=reading,
            prompts=map(questions.record, range(len(questions.places))),
        )
        for key, folder in judges.items()
    }  # fmt: skip
    return Speaker(prompts, sampler, sources)


def answer_all(
    session: Session[Any],
    questions: Questions,
    *,
    judges: Mapping[str, str],
    stream: bool = False,
) -> None:
    """Take the steps that are left; afterwards ``responses.jsonl`` holds every response.

    Args:
        judges: reward models by the key under which rows hold their scores, ``score`` or ``judge``.
        stream: write ``tokens.jsonl`` besides.

    Raises:
        UsageError: a model cannot be used.
        StopRequested: asked to stop; what stands in the files holds.
        TrainingError: logits or a score are not finite, or memory does not suffice.
    """
    from_step = session.world.from_main(finished_steps(session.folder, questions))
    metrics = open_run(
        session,
        data_sha256=questions.file.sha256,
        model_fingerprint=questions.fingerprint,
        facts=facts_of(session, questions),
        from_step=from_step,
    )
    if from_step:
        session.say(f"resuming after step {from_step}")
    answering = Answering(session, questions, judges, metrics, from_step=from_step, stream=stream)
    session.stop.grace_seconds = STOP_SECONDS
    for step in range(from_step + 1, len(questions.steps) + 1):
        answering.take_step(step)
        if session.world.any(session.stop.requested, device=session.device):
            reason = session.stop.reason or "stopped with another process"
            raise StopRequested(f"{reason} after step {step}")


class Answering:
    """The steps on their way: the model in memory, and the open files."""

    def __init__(
        self,
        session: Session[Any],
        questions: Questions,
        judges: Mapping[str, str],
        metrics: MetricsFile | None,
        *,
        from_step: int,
        stream: bool,
    ) -> None:
        self._session, self._questions, self._judges, self._metrics = session, questions, judges, metrics
        self._responses: StepFile | None = None
        self._tokens: TokenStream | None = None
        if session.world.is_main:
            self._responses = StepFile(session.folder / RESPONSES_NAME, from_step=from_step)
            self._tokens = TokenStream(session.folder, from_step=from_step) if stream else None
        self._speaker: Speaker | None = None
        self._speaks = -1

    def take_step(self, step: int) -> None:
        """Sample, score and write; the step counts once its metrics are written.

        Raises:
            StopRequested: asked to stop in the middle of it; the step is dropped.
        """
        started = time.monotonic()
        index, numbers = self._questions.steps[step - 1]
        speaker = self._speaker_of(index)
        sampled = self._sample(step, index, numbers, speaker)
        sampled_at = time.monotonic()
        scores = {
            key: score_together(self._session, [source], sampled).total for key, source in speaker.sources.items()
        }
        seconds = {"sample": sampled_at - started, "score": time.monotonic() - sampled_at}
        self._write_rows(step, index, numbers, sampled, scores)
        self._session.step = step
        if self._metrics is not None:
            row = figures_of(index, sampled, scores, seconds)
            self._metrics.write(step, row)
            self._metrics.sync()
            words = " ".join(f"{name.rpartition('/')[2]} {value:.4g}" for name, value in row.items())
            self._session.say(f"step {step}/{len(self._questions.steps)} {words}")

    def _speaker_of(self, index: int) -> Speaker:
        if self._speaker is None or self._speaks != index:
            self._speaker = None  # the one before goes first: there may be no room for both
            gc.collect()
            if self._session.device.type == "cuda":
                torch.cuda.empty_cache()
            asked = self._questions.asked[index]
            self._session.say(f"{asked.name}: {len(self._questions.places)} prompts, {asked.each} responses to each")
            self._speaker, self._speaks = (
                load_speaker(self._session, self._questions, index, judges=self._judges), index,
            )  # fmt: skip
            self._speaker.sampler.heard = None if self._tokens is None else self._tokens.heard
        return self._speaker

    def _sample(self, step: int, index: int, numbers: Sequence[int], speaker: Speaker) -> Sampled:
        each = self._questions.asked[index].each
        draws = {
            self._questions.places[number] * MOST_SAMPLES + sample: (index, number, sample)
            for number in numbers
            for sample in range(each)
        }
        if self._tokens is not None:
            stops = speaker.sampler.settings.stop_ids
            self._tokens.begin(step, draws, decode=speaker.decode, stop_ids=stops)
        sampled = sample_together(
            self._session, speaker.sampler, speaker.prompts, numbers, purpose=SAMPLING, step=0, each=each,
            draws=list(draws),
        )  # fmt: skip
        if sampled is None:
            reason = self._session.stop.reason or "stopped with another process"
            raise StopRequested(f"{reason} in step {step}, dropped")
        if self._tokens is not None:
            self._tokens.finish(dict(zip(draws, sampled.samples, strict=True)))
        return sampled

    def _write_rows(
        self, step: int, index: int, numbers: Sequence[int], sampled: Sampled, scores: Mapping[str, list[float]]
    ) -> None:
        if self._responses is None:
            return
        asked, config = self._questions.asked[index], self._session.config
        for place, episode in enumerate(sampled.episodes):
            number = numbers[place // asked.each]
            record = self._questions.record(number)
            self._responses.append(step, {
                "model_index": index,
                "prompt_index": number,
                "sample": place % asked.each,
                "id": record.record.get("id"),
                "split": record.split,
                "split_group": record.split_group,
                "prompt": [{"role": message.role, "content": message.content} for message in record.prompt],
                "model": asked.name,
                "text": episode.text,
                "thinking": episode.thinking,
                "tokens": len(episode.spoken_ids),
                "token_ids": list(episode.spoken_ids),
                "ended": episode.ended,
                "score": None,
                **{key: values[place] for key, values in scores.items()},
                "temperature": config.temperature,
                "seed": config.seed,
            })  # fmt: skip
        self._responses.sync()


def figures_of(
    index: int, sampled: Sampled, scores: Mapping[str, list[float]], seconds: Mapping[str, float]
) -> dict[str, float | None]:
    """The row of a step; means over its responses."""
    episodes, tokens = sampled.episodes, sum(sampled.counts)
    return {
        "sample/model": index,
        "sample/length_mean": sum(len(episode.spoken_ids) for episode in episodes) / len(episodes),
        "sample/ended_rate": sum(episode.ended for episode in episodes) / len(episodes),
        **{f"sample/{key}_mean": sum(values) / len(values) for key, values in scores.items()},
        "time/tokens_per_second": round(tokens / max(seconds["sample"], 1e-9), 1),
        "time/sample_seconds": round(seconds["sample"], 3),
        "time/score_seconds": round(seconds["score"], 3),
        "time/step_seconds": round(sum(seconds.values()), 3),
    }


def facts_of(session: Session[Any], questions: Questions) -> dict[str, Any]:
    """What ``run.json`` keeps of the decisions made at the start."""
    return {
        "device": str(session.device),
        "forward_dtype": str(choose_autocast(session.config.dtype, session.device)).removeprefix("torch."),
        "chat_template": [reader.encoder.template_name for reader in questions.readers],
        "models": [one.name for one in questions.asked],
        "prompts": len(questions.places),
        "steps": len(questions.steps),
        "others": questions.others,
    }
