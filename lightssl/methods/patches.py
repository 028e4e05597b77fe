"""What tasks on patches of an image share: how patches are cut, and how they are compared."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightssl.backbones.base import Backbone
from lightssl.errors import ConfigError
from lightssl.methods.base import Branch, Method
from lightssl.types import PositiveInt, Share

GRID = 3  # cells a side
CELLS = GRID**2


class PatchMethod(Method):
    """A task on the patches of a 3 x 3 grid: each is embedded by itself, then several embeddings are classified.

    As in Kolesnikov et al. 2019 (arXiv 1901.09005): a patch lies somewhere in its cell, so that edges do not go on from
    one to the next; its mean and standard deviation are taken out, so that neither do brightness and colour.

    Args:
        backbone: Network to train.
        width: Of the embedding of a patch.
        hidden: Width of the layer that sees the embeddings side by side.
        dropout: Share of that layer which is left out.
        patch: Pixels of the side of a patch. The rest of its cell, a third of the view, is room to move in.
        inputs: How many embeddings are looked at.
        classes: How many answers there are.
    """

    least_global_views = 1

    def __init__(
        self,
        backbone: Backbone,
        *,
        width: PositiveInt,
        hidden: PositiveInt,
        dropout: Share,
        patch: PositiveInt,
        inputs: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.network = Branch(backbone, nn.Sequential(nn.Linear(backbone.feature_width, width)))
        self.classifier = nn.Sequential(
            nn.Linear(inputs * width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        self.patch = patch

    @property
    def branch(self) -> Branch:
        """Backbone and embedding of a patch."""
        return self.network

    def embed(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Embed the patches of the V global views; local ones are too small to cut, and not looked at.

        Returns:
            Features of the first views, the mean over their patches, [B, D], and embeddings [9, V * B, width].

        Raises:
            ConfigError: A patch is larger than its cell.
        """
        features, embeddings = self.network([cut_patches(views[0].flatten(0, 1), self.patch)])
        return features[:, : views[0].shape[1]].mean(dim=0).detach(), embeddings


def cut_patches(images: Tensor, side: int) -> Tensor:
    """Cut one patch out of each cell of a 3 x 3 grid, at a place drawn from torch's generator.

    Args:
        images: [B, 3, S, S]; each cell is S // 3 pixels wide and the rest of S is left out at the right and the bottom.
        side: Pixels of the side of a patch.

    Returns:
        [9, B, 3, side, side], row by row, each with a mean of 0 and a standard deviation of 1 over pixels and colours.

    Raises:
        ConfigError: A patch is larger than its cell.
    """
    batch, _, height, width = images.shape
    cell = min(height, width) // GRID
    if side > cell:
        raise ConfigError(
            f"Patches of {side} pixels do not fit into the cells of views of {min(height, width)}, which have {cell}.",
            f"Lower method.patch, or raise views.global.size to {GRID * side} at least.",
        )
    rows, columns = torch.randint(cell - side + 1, (2, CELLS, batch), device=images.device)
    numbers = torch.arange(CELLS, device=images.device)[:, None]
    rows, columns = rows + cell * (numbers // GRID), columns + cell * (numbers % GRID)  # [9, B], of the first pixel
    within = torch.arange(side, device=images.device)
    places = (
        torch.arange(batch, device=images.device)[None, :, None, None],
        (rows[..., None] + within)[..., :, None],
        (columns[..., None] + within)[..., None, :],
    )
    # By pixels, which an index of several dimensions leaves last: [9, B, side, side, 3].
    patches = images.movedim(1, -1)[places].movedim(-1, 2)
    return standardised(patches)


def standardised(patches: Tensor) -> Tensor:
    """Take mean and standard deviation, over pixels and colours, out of each patch [..., 3, H, W]."""
    patches = patches.float()
    deviation, mean = torch.std_mean(patches, dim=(-3, -2, -1), keepdim=True, correction=0)
    # A patch of one colour has none: it becomes 0, and noise is not blown up.
    least = patches.shape[-3:].numel() ** -0.5
    return (patches - mean) / deviation.clamp(min=least)
