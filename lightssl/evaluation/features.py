"""The features of a frozen network, computed once and shared by every evaluation."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightssl.backbones.base import Backbone
from lightssl.backbones.batchnorm import fold_batch_norm, in_eval_mode
from lightssl.errors import DataError
from lightssl.images import normalise


@dataclass(frozen=True)
class Features:
    """Features of a training and a test set, with what is known about each image. N images, D feature width.

    Raises:
        DataError: The parts do not fit each other, one is empty, or a feature is not finite.
    """

    train: Tensor  # float32 [N, D]
    train_labels: Tensor  # int64 [N], positions in `classes`
    test: Tensor  # float32 [M, D]
    test_labels: Tensor  # int64 [M]
    classes: list[str]
    train_indices: Tensor  # int64 [N], position of each image in its source
    test_indices: Tensor  # int64 [M]

    def __post_init__(self) -> None:
        if self.train.shape[1:] != self.test.shape[1:]:
            raise DataError(
                f"Training features are {self.train.shape[1]} wide and test features {self.test.shape[1]}.",
                "Both must come from the same network.",
            )
        parts = {
            "training": (self.train, self.train_labels, self.train_indices),
            "test": (self.test, self.test_labels, self.test_indices),
        }
        for part, (features, labels, indices) in parts.items():
            _check_part(part, features, labels, indices, len(self.classes))

    @cached_property
    def train_directions(self) -> Tensor:
        """Training features of length 1, ``[N, D]``."""
        return normalize(self.train, dim=1)

    @cached_property
    def test_directions(self) -> Tensor:
        """Test features of length 1, ``[M, D]``."""
        return normalize(self.test, dim=1)

    def columns(self, widths: Sequence[int]) -> list["Features"]:
        """Split features side by side into those of each width, in the order of the columns."""
        parts = zip(self.train.split(list(widths), dim=1), self.test.split(list(widths), dim=1), strict=True)
        return [replace(self, train=train.contiguous(), test=test.contiguous()) for train, test in parts]

    def require_known_classes(self) -> None:
        """Raise DataError when the test set holds a class that no training image shows."""
        seen = set(self.train_labels.tolist())
        unseen = [self.classes[label] for label in sorted(set(self.test_labels.tolist()) - seen)]
        if unseen:
            raise DataError(
                f"No training image shows {', '.join(repr(name) for name in unseen[:5])}"
                f"{f' and {len(unseen) - 5} more classes' if len(unseen) > 5 else ''} of the test set.",
                "The test set could never be named right. Give training images of every class.",
            )


def _check_part(part: str, features: Tensor, labels: Tensor, indices: Tensor, classes: int) -> None:
    if len(features) == 0:
        raise DataError(f"The {part} set holds no image.", "Evaluation needs training and test images.")
    if not len(features) == len(labels) == len(indices):
        raise DataError(
            f"The {part} set has {len(features)} features, {len(labels)} labels and {len(indices)} indices.",
            "Each image needs one of each.",
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"A label of the {part} set is not one of the {classes} classes.", "Labels count from 0.")
    if not bool(torch.isfinite(features).all()):
        raise DataError(
            f"Features of the {part} set are not finite.",
            "The network has diverged, or its batch-norm statistics are damaged. Evaluate an earlier checkpoint.",
        )


class StageFeatures(nn.Module):
    """A backbone whose features are those of all its stages, side by side.

    Of every stage but the last they are the mean of its map over all positions, of the last the backbone's own.

    Args:
        backbone: With S stages.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        *earlier, _ = backbone.stages
        self.widths = [*(stage.width for stage in earlier), backbone.feature_width]
        self.names = [f"stage {number} of {len(self.widths)}" for number in range(1, 1 + len(self.widths))]

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [B, 3, H, W] to features [B, sum of ``widths``]."""
        *earlier, _ = self.backbone.feature_maps(images)
        return torch.cat([*(one.mean(dim=(2, 3)) for one in earlier), self.backbone(images)], dim=1)


def extract_features(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a frozen network over images.

    Args:
        network: Turns float ``[B, 3, S, S]`` into ``[B, D]``. A backbone stays as it is: a copy that computes the same
            in less time runs instead. Another network is moved to ``device`` and back, and run in eval mode.
        batches: Pairs of images, uint8 ``[B, S, S, 3]``, and their positions in the source, int64 ``[B]``.
        mean: Of each colour channel, in [0, 1], as in training.
        std: Of each colour channel, in [0, 1], as in training.
        device: Where to run.
        on_batch: Called after each batch with the number of images in it, to show progress.

    Returns:
        Features, float32 ``[N, D]``, and positions in the source, int64 ``[N]``, in the order they came, on the CPU.

    Raises:
        DataError: There is no image.
    """
    network = _quick_copy(network) if isinstance(network, Backbone | StageFeatures) else network
    home = next((parameter.device for parameter in network.parameters()), device)
    network.to(device)
    features, positions = [], []
    with in_eval_mode(network), torch.inference_mode():
        for images, indices in batches:
            features.append(network(normalise(images.to(device), mean, std)).float().cpu())
            positions.append(indices.cpu())
            if on_batch is not None:
                on_batch(len(indices))
    network.to(home)
    if not features:
        raise DataError("There are no images to compute features of.", "Check what --data names.")
    # Copied outside of inference mode, so that autograd may use the features.
    return torch.cat(features), torch.cat(positions)


def _quick_copy(network: nn.Module) -> nn.Module:
    """Copy a network to one that computes the same features in less time."""
    copy = deepcopy(network).eval()
    fold_batch_norm(copy)
    return copy.to(memory_format=torch.channels_last)
