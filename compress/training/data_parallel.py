"""Data-parallel training: every process takes its part of each batch, and all take the same step.

Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020 (arXiv:2006.15704).
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessContext, start_processes

Learn = Callable[[nn.Module], object]

_TIMEOUT = timedelta(minutes=5)  # for the slowest process to reach the same step


def learn_on(places: Sequence[torch.device], model: nn.Module, learn: Learn, others_learn: Learn) -> None:
    """Train ``model`` in place by ``learn``, on several devices at once.

    This process trains on the first of ``places``; for each further one a process calls ``others_learn``, which must be
    the same training without its reports and must be picklable, on a copy of the model. With one device ``learn`` is
    called and nothing else happens.

    Raises:
        RuntimeError: one of the other processes ended, or did not reach the same step within five minutes.
    """
    model.to(places[0])
    if len(places) == 1:
        learn(model)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting")
        others = start_processes(  # type: ignore[no-untyped-call]
            _learn_as_one_of, (meeting, places, model.cpu(), others_learn), len(places) - 1, join=False
        )
        try:
            _join(meeting, 0, places)
            learn(model.to(places[0]))
            _average_statistics(model)
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()
            _end(others)


def rank() -> int:
    """The number of this process among those that train together; the first, 0, writes checkpoints.

    >>> rank()
    0
    """
    return distributed.get_rank() if distributed.is_initialized() else 0


def part_of_batch(count: int) -> slice:
    """Which of ``count`` images of a batch are those of this process.

    >>> part_of_batch(128)
    slice(0, 128, None)
    """
    if not distributed.is_initialized():
        return slice(0, count)
    world = distributed.get_world_size()
    return slice(count * rank() // world, count * (rank() + 1) // world)


def agreed(value: float, place: torch.device) -> float:
    """The number of the first process, such as a time that all must take as the same.

    >>> agreed(1.5, torch.device("cpu"))
    1.5
    """
    if not distributed.is_initialized():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=place)
    distributed.broadcast(shared, 0)
    return float(shared)


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes; nothing where this one trains alone."""
    if distributed.is_initialized():
        given = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in given])
        distributed.all_reduce(flat)
        for tensor, total in zip(given, torch.split(flat, [tensor.numel() for tensor in given]), strict=True):
            tensor.copy_(total.view(tensor.shape))


def _learn_as_one_of(index: int, meeting: Path, places: Sequence[torch.device], model: nn.Module, learn: Learn) -> None:
    model = copy.deepcopy(model).to(places[index + 1])  # what was sent lies in memory that the processes share
    _join(meeting, index + 1, places)
    learn(model)
    _average_statistics(model)
    distributed.destroy_process_group()


def _join(meeting: Path, number: int, places: Sequence[torch.device]) -> None:
    place = places[number]
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group(
        "nccl" if place.type == "cuda" else "gloo",
        init_method=f"file://{meeting}", rank=number, world_size=len(places), timeout=_TIMEOUT,
    )  # fmt: skip


@torch.no_grad()
def _average_statistics(model: nn.Module) -> None:
    """Running means and variances: each process saw those of its own parts."""
    found = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if found:
        add_up(found)
        for buffer in found:
            buffer.div_(distributed.get_world_size())


def _end(others: ProcessContext) -> None:
    for process in others.processes:
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
