"""The stage Sparsify: single weights become zero and stay zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from compress.argument_checks import is_number, is_whole
from compress.data.dataset import Dataset
from compress.data.preprocessing import Preprocessing
from compress.distillation.guided_training import Learn, guided_training
from compress.networks.artifact import Artifact
from compress.networks.onnx_weights import with_changed_weights
from compress.networks.weight_layers import WeightLayer, layers_of, per_layer_setting
from compress.sparsity.layer_sensitivity import equal_amounts, layer_losses
from compress.sparsity.masks import Kept, Masks, Scores, cubic, keep_in_groups, keep_of_all, keep_of_each
from compress.stage_interface import Context
from compress.training.evaluation import mean_loss
from compress.training.loop import Recipe
from compress.weight_codecs.sparse_formats import sparse_format
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import FLOAT32, TensorFormat
from hw_profiles.spelling_suggestions import check_one_of

Amount = float | Mapping[str, float]
LossOf = Callable[[nn.Module], float]

CRITERIA = ("magnitude", "movement", "surgery")
_IN_TRAINING = ("movement", "surgery")  # criteria that are known during a training only
SCOPES = ("global", "layer", "sensitivity")
SCHEDULES = ("gradual", "iterative")
PATTERNS = {"": (0, 0), "2:4": (2, 4), "4:8": (4, 8)}
_SCANNED_IMAGES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sparsify:
    """Set the least important weights to zero and fine-tune with the mask fixed.

    ``amount``: fraction of all weights, or by layer or kind (``{"conv": 0.6, "classifier": 0.9}``). ``criterion``:
    ``"magnitude"``, ``"movement"``: weights that move towards zero during training are removed first (2005.07683), or
    ``"surgery"``: by magnitude, but removed weights are still trained and may return (1608.04493). ``scope``: weights
    are ranked over the whole network, in each layer, or in each layer with amounts that cost all layers the same loss
    on validation images. ``pattern``: 2:4 (4:8) structured sparsity along the input axis; ``amount`` and ``scope`` are
    then ignored, and layers whose size is not divisible stay dense.

    ``schedule``: ``"gradual"``, fast at first and then slower during one training (1710.01878), or ``"iterative"``: in
    ``rounds`` equal trainings, each with its own learning-rate schedule (2003.02389), after the weights of the round
    are removed; one round is one-shot. With ``rewind`` the remaining weights are reset to the input of the stage before
    each round (1912.05671). ``recipe`` None disables training.

    >>> Sparsify(amount=0.9, scope="layer").schedule
    'gradual'
    """

    name: ClassVar[str] = "sparsify"
    lossy: ClassVar[bool] = True

    amount: Amount = 0.8
    criterion: str = "magnitude"
    scope: str = "global"
    pattern: str = ""
    schedule: str = "gradual"
    rounds: int = 1
    rewind: bool = False
    recipe: Recipe | None = Recipe(epochs=8, learning_rate=0.03)

    def __post_init__(self) -> None:
        for each in self.amount.values() if isinstance(self.amount, Mapping) else [self.amount]:
            if not is_number(each, 0, 1):
                raise InputError(f"Sparsify.amount must be between 0 and 1, got {each!r}")
        valid = {"criterion": CRITERIA, "scope": SCOPES, "pattern": tuple(PATTERNS), "schedule": SCHEDULES}
        for field, choices in valid.items():
            check_one_of(f"Sparsify.{field}", getattr(self, field), choices)
        if not is_whole(self.rounds, 1):
            raise InputError(f"Sparsify.rounds must be at least 1, got {self.rounds!r}")
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule == "gradual" and (self.rounds > 1 or self.rewind):
            raise InputError("Sparsify: rounds and rewind require schedule='iterative', got 'gradual'")
        if self.criterion in _IN_TRAINING and (self.schedule != "gradual" or self.recipe is None):
            raise InputError(
                f"Sparsify: criterion='{self.criterion}' requires training: schedule='gradual' and a recipe"
            )
        if self.scope == "sensitivity" and isinstance(self.amount, Mapping):
            raise InputError(
                "Sparsify: scope='sensitivity' finds the amount of each layer, so amount must be one number"
            )

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same network with zeros, trained with the earlier network as teacher."""
        check_can_be_sparse(artifact)
        if self.recipe is None:
            return self._untrained(artifact, context)
        model, record = artifact.model(), artifact.preprocessing
        layers = layers_of(artifact, model)
        training = guided_training(
            self.recipe, context.data, model, record, seed=context.seed, parts=self.rounds,
            checkpoint=context.checkpoint, report=context.report,
        )  # fmt: skip
        assert training is not None
        self.apply(model, layers, training, validation_loss(context.data, record))
        shares = densities(layers)
        return replace(
            artifact.with_model(model),
            weight_formats={**artifact.weight_formats, **sparse_formats(shares)},
            metrics={**training.metrics(), "densities": shares},
        )

    def apply(
        self,
        model: nn.Module,
        layers: Mapping[str, WeightLayer],
        learn: Learn | None = None,
        loss_of: LossOf | None = None,
    ) -> None:
        """Make ``layers`` of ``model`` sparse in place, by any training and any loss."""
        if learn is None:
            self.untrained()  # tells what cannot be so
        targets = self._targets(model, layers, loss_of)
        masks = Masks({name: layers[name] for name in targets}, self.criterion)
        try:
            if learn is None or self.schedule == "iterative":
                self._in_rounds(model, masks, targets, learn)
            else:
                self._gradually(model, masks, targets, learn)
        finally:
            masks.finish()

    def untrained(self) -> Sparsify:
        """The same without a training; an InputError where it needs one."""
        if self.criterion in _IN_TRAINING:
            raise InputError(f"Sparsify: {self.criterion} is known during a training only: it needs images to train on")
        return replace(self, recipe=None)

    def _untrained(self, artifact: Artifact, context: Context) -> Artifact:
        if self.scope == "sensitivity" and not artifact.weights:
            raise InputError("Sparsify: scope='sensitivity' measures a module, an ONNX file takes global or layer")
        shares: dict[str, float] = {}

        def change(model: nn.Module, layers: Mapping[str, WeightLayer]) -> dict[str, TensorFormat]:
            loss_of = validation_loss(context.data, artifact.preprocessing) if len(context.data.val) else None
            self.apply(model, layers, None, loss_of)
            shares.update(densities(layers))
            return {name: sparse_format(share) for name, share in shares.items()}

        done = with_changed_weights(artifact, change)
        return replace(done, metrics={**done.metrics, "densities": shares})

    def _targets(self, model: nn.Module, layers: Mapping[str, WeightLayer], loss_of: LossOf | None) -> dict[str, float]:
        """The final amount of each layer that gets zeros; with global ranking they are those of all together."""
        if self.pattern:
            return dict.fromkeys(_divided(layers, self.pattern), 0.5)
        if self.scope != "sensitivity":
            return per_layer_setting(self.amount, layers, "Sparsify.amount")
        assert not isinstance(self.amount, Mapping)
        if loss_of is None:
            raise InputError("Sparsify: scope='sensitivity' requires validation images, but none were given")
        sizes = {name: layer.weight.numel() for name, layer in layers.items()}
        return equal_amounts(layer_losses(model, layers, loss_of), sizes, float(self.amount))

    def _kept(self, scores: Scores, targets: Mapping[str, float], progress: float) -> Kept:
        part = cubic(progress)
        if self.pattern:
            stay, group = PATTERNS[self.pattern]
            staying = group - int((group - stay) * part)
            return {name: keep_in_groups(score, staying, group) for name, score in scores.items()}
        if self.scope == "global" and not isinstance(self.amount, Mapping):
            return keep_of_all(scores, self.amount * part)
        return keep_of_each(scores, {name: amount * part for name, amount in targets.items()})

    def _gradually(self, model: nn.Module, masks: Masks, targets: Mapping[str, float], learn: Learn) -> None:
        def tighten(share: float) -> None:
            progress = masks.due(share)
            if progress is not None:
                masks.set(self._kept(masks.scores(), targets, progress))

        learn(model, tighten)
        tighten(1.0)

    def _in_rounds(self, model: nn.Module, masks: Masks, targets: Mapping[str, float], learn: Learn | None) -> None:
        given = {name: value.clone() for name, value in model.state_dict().items() if not masks.owns(name)}
        for number in range(1, self.rounds + 1):
            masks.set(self._kept(masks.scores(), targets, number / self.rounds))
            if self.rewind:
                model.load_state_dict(given, strict=False)
            if learn is not None:
                learn(model, _nothing)


def check_can_be_sparse(artifact: Artifact) -> None:
    """Raise an InputError where zeros would undo what an earlier stage made of the weights."""
    fewer = any(stored.codebook or stored.bits < FLOAT32.bits for stored in artifact.weight_formats.values())
    stored = artifact.deployed is not None and bool(artifact.weights)  # an ONNX file is all there is
    if artifact.quantization is not None or stored or fewer:
        raise InputError(
            "Sparsify changes float weights: it must come before they are made integers or shared "
            "or are stored in fewer bits"
        )


def densities(layers: Mapping[str, WeightLayer]) -> dict[str, float]:
    """Share of the weights of each layer that are not zero."""
    return {name: float(layer.weight.count_nonzero()) / layer.weight.numel() for name, layer in layers.items()}


def sparse_formats(shares: Mapping[str, float]) -> dict[str, TensorFormat]:
    """The format of each layer's weight, from its density."""
    return {f"{name}.weight": sparse_format(share) for name, share in shares.items()}


def validation_loss(data: Dataset, preprocessing: Preprocessing) -> LossOf:
    """Mean cross-entropy on up to 1,000 validation images."""
    split = data.val.spread(_SCANNED_IMAGES)
    return lambda model: mean_loss(model, split, preprocessing)


def _divided(layers: Mapping[str, WeightLayer], pattern: str) -> list[str]:
    """The layers whose inputs come in whole groups of the pattern."""
    group = PATTERNS[pattern][1]
    fitting = [name for name, layer in layers.items() if layer.weight.shape[1] % group == 0]
    if not fitting:
        widths = ", ".join(f"{name} {layer.weight.shape[1]}" for name, layer in layers.items())
        raise InputError(
            f"Sparsify.pattern {pattern}: the inputs of at least one layer must be a multiple of {group}, "
            f"got {widths[:200]}"
        )
    return fitting


def _nothing(share: float) -> None:
    """Masks that were set stay as they are."""
