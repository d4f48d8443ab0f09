"""How fast this machine trains: a few planned batches before the run, and its time from them."""

import random
import time
from collections.abc import Sequence
from typing import Any

from tuning.config import TuneConfig
from tuning.plan import Plan
from tuning.scoring import DevCase, GenerationSettings, generate_answers

_CASES = 4


def probe_run(
    trainer: Any, plan: Plan, config: TuneConfig, cases: Sequence[DevCase]
) -> dict[str, Any]:
    """Measure `probe_steps` batches and a few dev answers; weights and random state stay.

    Returns:
        tokens_per_second, seconds (of the whole run) and their parts train_seconds and
        evaluate_seconds.
    """
    import torch

    random_state = torch.get_rng_state(), random.getstate()
    # Dropout on a GPU draws from the GPU's own state.
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    pace = _training_pace(trainer, plan, config)
    train = plan.tokens[-1] / pace
    evaluations = len(plan.epoch_ends) + (
        plan.steps // config.eval_steps if config.eval_steps else 0
    )
    evaluate = evaluations * len(cases) * _seconds_per_case(trainer, config, cases)
    torch.set_rng_state(random_state[0])
    random.setstate(random_state[1])
    if on_gpu:
        torch.cuda.set_rng_state_all(on_gpu)
    seconds = min(train + evaluate, config.max_seconds or float("inf"))
    return {
        "tokens_per_second": round(pace, 1),
        "train_seconds": round(train, 1),
        "evaluate_seconds": round(evaluate, 1),
        "seconds": round(seconds, 1),
        "tokens": plan.tokens[-1],
    }


def _training_pace(trainer: Any, plan: Plan, config: TuneConfig) -> float:
    """Real tokens per second of forward and backward; the first batch warms up uncounted."""
    import torch

    count = min(config.probe_steps, len(plan.batches))
    chosen = [plan.batches[i * len(plan.batches) // count] for i in range(count)]
    model = trainer.model
    model.train()
    tokens, seconds = 0, 0.0
    for number, batch in enumerate([chosen[0], *chosen]):
        inputs = trainer._prepare_inputs(trainer.data_collator([{"rows": batch}]))
        begun = time.perf_counter()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, inputs)
        loss.backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number:
            seconds += time.perf_counter() - begun
            tokens += sum(len(plan.rows[i].input_ids) for i in batch)
    model.zero_grad()
    return tokens / seconds


def _seconds_per_case(trainer: Any, config: TuneConfig, cases: Sequence[DevCase]) -> float:
    if not cases:
        return 0.0
    # From the middle: neither the shortest prompts nor the longest.
    by_length = sorted(cases, key=lambda case: len(case.prompt_ids))
    middle = max(0, len(by_length) // 2 - _CASES // 2)
    some = by_length[middle : middle + _CASES]
    settings = GenerationSettings(
        len(some), config.eval_new_tokens, config.compute_dtype == "bfloat16"
    )
    begun = time.perf_counter()
    prompts = [case.prompt_ids for case in some]
    generate_answers(trainer.model, trainer.processing_class, prompts, settings)
    return (time.perf_counter() - begun) / len(some)
