"""Uniform mean of the trainable weights over the last steps of a run.

The mean of the last iterates has a smaller variance than the last one (Polyak and Juditsky, 1992;
for networks arXiv 1803.05407, over a sliding tail arXiv 2306.03241). A plain mean over the tail
has one setting, the share of the steps; a moving average would add a decay that must fit the
length of the run. It is held in float32 beside the trainable weights alone, so a LoRA run pays
one more copy of its adapter.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AVERAGE_FILE = "tail_average.safetensors"


class TailAverage:
    """Running mean of trainable weights over the last `share` of a run.

    Attributes:
        share: Share of the run, in [0, 1); 0 averages nothing.
        count: Steps in the mean so far.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.count = 0
        self._means: dict[str, Any] = {}

    def add(self, model: Any, progress: float) -> None:
        """Take the weights of a step into the mean if it belongs to the tail.

        Args:
            model: The model in training.
            progress: Share of the run done with this step, in (0, 1].
        """
        # Steps are counted exactly: 0.75 of 8 steps must not depend on the last bit.
        if progress <= 1 - self.share + 1e-9:
            return
        self.count += 1
        for name, weight in _trainable(model).items():
            new = weight.detach().float()
            if name in self._means:
                self._means[name].lerp_(new, 1 / self.count)
            else:
                self._means[name] = new.clone()

    @contextlib.contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        """Put the mean into the model, and its own weights back afterwards."""
        import torch

        weights = _trainable(model)
        kept = {name: weight.detach().clone() for name, weight in weights.items()}
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(self._means[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(kept[name])

    def save(self, folder: Path) -> None:
        """Write the mean into a checkpoint folder; nothing before the tail has begun."""
        from safetensors.torch import save_file

        if self.count:
            tensors = {name: mean.cpu().contiguous() for name, mean in self._means.items()}
            save_file(tensors, folder / AVERAGE_FILE, metadata={"count": str(self.count)})

    def load(self, folder: Path, model: Any) -> None:
        """Go on with the mean of a checkpoint folder; without one the tail has not begun."""
        from safetensors import safe_open

        path = folder / AVERAGE_FILE
        if not path.is_file():
            return
        weights = _trainable(model)
        with safe_open(path, framework="pt") as tensors:
            self.count = int(tensors.metadata()["count"])
            for name, weight in weights.items():
                self._means[name] = tensors.get_tensor(name).to(weight.device)


def _trainable(model: Any) -> dict[str, Any]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
