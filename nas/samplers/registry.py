"""Samplers by name; each is created anew for every trial, from a seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

from hw_profiles.spelling_suggestions import check_known
from nas.samplers.surrogate import SurrogateSampler

SamplerFactory = Callable[[int], optuna.samplers.BaseSampler]


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator over all choices together (2304.11127)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def random(seed: int) -> optuna.samplers.BaseSampler:
    """Every choice uniformly: what the others must beat."""
    return optuna.samplers.RandomSampler(seed=seed)


def surrogate(seed: int) -> optuna.samplers.BaseSampler:
    """A Gaussian process that learns which choices have an order, and the largest expected improvement."""
    return SurrogateSampler(seed)


SAMPLERS: dict[str, SamplerFactory] = {"tpe": tpe, "random": random, "surrogate": surrogate}


def sampler_named(name: str) -> SamplerFactory:
    """A sampler's factory.

    Raises:
        InputError: no sampler has that name.

    >>> sampler_named("random").__name__
    'random'
    """
    check_known("unknown sampler", name, SAMPLERS)
    return SAMPLERS[name]
