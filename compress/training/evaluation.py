"""Evaluates a module on a split: predictions, accuracy, balanced accuracy, loss."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from torch.nn import functional as F

from compress.data.dataset import Split
from compress.data.preprocessing import Preprocessing
from hw_profiles.torch_io.trace import in_eval_mode


@torch.inference_mode()
def predict(model: nn.Module, split: Split, preprocessing: Preprocessing, batch_size: int = 500) -> NDArray[np.int64]:
    """The class that the module gives each image."""
    place = device_of(model)
    found = []
    with in_eval_mode(model):
        for i in range(0, len(split), batch_size):
            images = torch.from_numpy(preprocessing.tensor(split.images[i : i + batch_size]))
            found.append(model(images.to(place)).argmax(1).cpu().numpy())
    return np.concatenate(found)


def accuracy(predictions: NDArray[np.int64], split: Split) -> float:
    """Share of predictions that are right, 0..1."""
    return float(np.mean(predictions == split.labels))


def balanced_accuracy(predictions: NDArray[np.int64], split: Split) -> float:
    """Mean over the classes of the split of the share of each that is found, 0..1: for classes of unequal size.

    Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010.

    >>> split = Split(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 0, 0, 1]))
    >>> balanced_accuracy(np.array([0, 0, 0, 0]), split)
    0.5
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        return float(balanced_accuracy_score(split.labels, predictions))


def signal_to_noise_db(reference: NDArray[Any], values: NDArray[Any]) -> float:
    """The power of numbers by that of their error, in decibels; infinite where they are equal.

    >>> round(signal_to_noise_db(np.array([10.0, 0.0]), np.array([10.0, 1.0])), 6)
    20.0
    """
    exact = reference.astype(np.float64)
    noise = float(np.square(exact - values).sum())
    signal = float(np.square(exact).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def evaluate(model: nn.Module, split: Split, preprocessing: Preprocessing) -> float:
    """Accuracy of a module on a split, 0..1."""
    return accuracy(predict(model, split, preprocessing), split)


@torch.inference_mode()
def mean_loss(model: nn.Module, split: Split, preprocessing: Preprocessing, batch_size: int = 250) -> float:
    """Mean cross-entropy of a module on a split."""
    total, place = 0.0, device_of(model)
    with in_eval_mode(model):
        for i in range(0, len(split), batch_size):
            logits = model(torch.from_numpy(preprocessing.tensor(split.images[i : i + batch_size])).to(place))
            labels = torch.from_numpy(split.labels[i : i + batch_size]).to(place)
            total += float(F.cross_entropy(logits, labels, reduction="sum"))
    return total / len(split)


def training_place() -> torch.device:
    """Where a run trains: the first GPU of CUDA or ROCm, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_places() -> list[torch.device]:
    """All GPUs, for a training that several can share, or else the CPU."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return gpus or [training_place()]


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a module are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
