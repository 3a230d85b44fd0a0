"""What a training changes: model, optimizer and how far it is; its steps, the last good state, checkpoints."""

from __future__ import annotations

import copy
import io
import logging
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.atomic_files import write_bytes
from compress.training.batches import Batches
from compress.training.data_parallel import add_up, rank
from compress.training.faults import DivergedError, is_out_of_memory, logits_of, single_values_normalized, too_large
from compress.training.random_generators import seed_at
from compress.training.recipe import Loss, Recipe, schedule

log = logging.getLogger("fitnas")

LOOK_STEPS = 10  # so many steps are lost at most by a fault or a kill beyond the time between two checkpoints
MOST_ROLLBACKS = 3
_SLOWER = 0.25  # times the learning rate after each
_LARGEST_NORM = 5.0
_LAYERS_SEED = 1 << 31  # far from the seeds of the batches, so that dropout does not follow the augmentation


class State:
    """The state of a training. ``kept`` is the last one in which all numbers were finite, which is what a checkpoint
    holds: a training that goes on from it is the same, also where it diverges later.

    ``bfloat16`` is None until the number format is chosen. ``images_at_once`` is less than a batch where the memory
    did not suffice for one; then gradients of parts are added up.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, batches: Batches, loss: Loss, seed: int) -> None:
        self.model, self.recipe, self.batches, self.loss, self.seed = model, recipe, batches, loss, seed
        self.bfloat16 = recipe.bfloat16
        self.step = self.rollbacks = 0
        self.seconds = 0.0
        self.images_at_once = batches.batch_size
        self.parameters = list(model.parameters())
        self.kept: dict[str, Any] | None = None
        # Of all losses and norms of gradients since the last look: it stays infinite or NaN where one of them is.
        self._sum = torch.zeros((), device=batches.place)
        # One kernel for all that a step does to a weight; None is torch's usual way.
        self._fused = True if batches.place.type == "cpu" and all(map(_is_plain, self.parameters)) else None
        self._unchecked = bool(self._fused)
        self.optimizer = torch.optim.SGD(
            [
                {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            momentum=0.9,
            nesterov=True,
            fused=self._fused,
        )

    def share(self, total: int) -> float:
        """How much of the training is over."""
        by_steps = self.step / total
        return by_steps if self.recipe.seconds is None else max(by_steps, self.seconds / self.recipe.seconds)

    @property
    def learning_rate(self) -> float:
        """The highest of the schedule: scaled to the batch, and lower after each time that training diverged."""
        return self.recipe.learning_rate * self.batches.batch_size / 128 * _SLOWER**self.rollbacks

    @property
    def parts(self) -> int:
        """In how many a batch is taken."""
        return math.ceil(self.batches.batch_size / self.images_at_once)

    @property
    def is_look_due(self) -> bool:
        """Whether it is so many steps that the state should be looked at."""
        return self.kept is None or self.step >= self.kept["step"] + LOOK_STEPS

    def seed_layers(self) -> None:
        """What the model draws in this step depends on (seed, step) alone."""
        seed = _LAYERS_SEED + (self.seed + 1) * 1_000_003 + self.step
        seed_at(self.batches.place, seed + (rank() << 40))

    def learn(self, share: float, *, bfloat16: bool) -> None:
        """One step.

        Raises:
            TooLargeError: it needs more memory than there is with one image at a time.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * schedule(share)
        pixels, labels = self.batches.at(self.step)
        loss = None
        while loss is None:
            loss = self._gradients_or_less(pixels, labels, bfloat16)
        add_up([loss, *self._gradients_of_parameters()])
        try:
            norm = self._clip()
            if self._unchecked:
                self._check_gradients()
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            raise (too_large(error) if is_out_of_memory(error) else error) from None
        self._sum.add_(loss).add_(norm)
        self.step += 1

    def _gradients_or_less(self, pixels: Tensor, labels: Tensor, bfloat16: bool) -> Tensor | None:
        """The loss, its gradient left in the parameters; None where that took too much memory, for a try in parts."""
        try:
            return self._gradients(pixels, labels, bfloat16)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error, again=self.parts > 1):
                raise
            if self.images_at_once == 1:
                raise too_large(error) from None
            self.images_at_once = (self.images_at_once + 1) // 2
            log.warning(
                "out of memory in step %d of a training: its batches of %d images are split into parts of at most %d",
                *(self.step, len(labels), self.images_at_once),
            )
        self.optimizer.zero_grad()
        self.seed_layers()
        return None

    def _gradients(self, pixels: Tensor, labels: Tensor, bfloat16: bool) -> Tensor:
        parts, place = math.ceil(len(labels) / self.images_at_once), pixels.device.type
        alone = len(labels) // parts == 1
        self.optimizer.zero_grad()
        total = torch.zeros((), device=pixels.device)
        with single_values_normalized(self.model) if alone else nullcontext():
            for some, theirs in zip(pixels.tensor_split(parts), labels.tensor_split(parts), strict=True):
                with torch.autocast(place, dtype=torch.bfloat16, enabled=bfloat16):
                    logits = logits_of(self.model, self.batches.normalized(some))
                    value = self.loss(logits.float(), theirs, some)  # a teacher in it runs in the same format
                if len(theirs) < self.batches.batch_size:
                    value = value * (len(theirs) / self.batches.batch_size)
                value.backward()  # type: ignore[no-untyped-call]
                total += value.detach()
        return total

    def _clip(self) -> Tensor:
        """The norm of the gradient, which then is at most 5."""
        norm = torch.nn.utils.get_total_norm(self._gradients_of_parameters())
        if norm.device.type != "cpu" or not norm <= _LARGEST_NORM:  # to ask another device is to wait for it
            torch.nn.utils.clip_grads_with_norm_(self.parameters, _LARGEST_NORM, norm)
        return norm

    def _gradients_of_parameters(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def _check_gradients(self) -> None:
        """The fused kernel takes numbers in the order of the memory, so gradients must lie there as weights do."""
        self._unchecked = False
        if not all(p.grad is None or _lie_alike(p, p.grad) for p in self.parameters):
            self._fused = None
            self._set_fused()

    def _set_fused(self) -> None:
        for group in self.optimizer.param_groups:
            group["fused"] = self._fused

    def look(self) -> bool:
        """Keep the state if all is finite in it; else go back to the last one that was kept, with a lower rate.

        Raises:
            DivergedError: it was so after three times, or before the first step.
        """
        if self._is_finite():
            self.kept = self._record()
            return True
        if self.kept is None:
            raise DivergedError("the initial weights of a training are not all finite numbers")
        if self.rollbacks == MOST_ROLLBACKS:
            raise DivergedError(
                f"the training diverged: loss, gradient or weights were not finite before step {self.step}, even "
                f"after {self.rollbacks} rollbacks with a reduced learning rate; use a lower learning rate "
                f"than {self.recipe.learning_rate:g} (Recipe.learning_rate, or --set learning_rate= for a run), and "
                "check the data"
            )
        diverged = self.step
        self.restore({**self.kept, "seconds": self.seconds, "rollbacks": self.rollbacks + 1})
        log.warning(
            "a training diverged before step %d (loss, gradient or weights were not finite): it continues from step %d "
            "with %g times its learning rate",
            *(diverged, self.step, _SLOWER**self.rollbacks),
        )
        return False

    def _is_finite(self) -> bool:
        if self._sum.is_meta:
            return True
        weights = torch.nn.utils.get_total_norm([p.detach() for p in self.parameters])
        return bool(torch.isfinite(self._sum + weights.to(self._sum.device)))

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = _copied(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "bfloat16": self.bfloat16,
                "rollbacks": self.rollbacks,
                "images_at_once": self.images_at_once,
            }
        )
        return record

    def restore(self, record: dict[str, Any]) -> None:
        """Become what :attr:`kept` or a checkpoint holds, and keep that."""
        self.model.load_state_dict(record["model"])
        self.optimizer.load_state_dict(_copied(record["optimizer"]))  # it takes the tensors themselves
        for parameter, kept in self.optimizer.state.items():  # of another memory format where the crash of a kernel was
            if kept.get("momentum_buffer") is not None:
                kept["momentum_buffer"] = torch.empty_like(parameter).copy_(kept["momentum_buffer"])
        self._set_fused()
        self.step, self.seconds = record["step"], record["seconds"]
        self.rollbacks = record.get("rollbacks", 0)
        self.images_at_once = record.get("images_at_once", self.images_at_once)
        if self.recipe.bfloat16 is None:  # what was measured once holds for all of the training
            self.bfloat16 = record["bfloat16"]
        self._sum.zero_()
        self.kept = record

    def save(self, path: Path) -> None:
        """Write the last good state."""
        buffer = io.BytesIO()
        torch.save(self.kept, buffer)
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Go on from a file."""
        self.restore(torch.load(path, map_location="cpu", weights_only=True))


def _copied(value: Any) -> Any:
    """The same without tensors in common."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return copy.copy(value)


def _is_plain(parameter: Tensor) -> bool:
    """Whether its memory holds its float32 numbers once each and nothing else."""
    return parameter.dtype == torch.float32 and _lie_alike(parameter, torch.empty_like(parameter))


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether equal places in memory hold equal places of two dense tensors; the stride of a side of 1 says nothing."""
    return one.layout == other.layout and all(
        mine == theirs for size, mine, theirs in zip(one.shape, one.stride(), other.stride(), strict=True) if size > 1
    )
