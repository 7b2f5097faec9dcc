"""Vision transformers of open width, depth, heads and MLP ratio, with shared weights.

After AutoFormer (Chen et al., 2021, arXiv:2107.00651): one embedding dimension and one depth for
the network, a number of heads and an MLP ratio for each layer. Position comes from a depthwise
convolution over the grid of tokens (arXiv:2102.10882), so that images may have any size; the
classifier sees the mean of the tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from nas import elastic
from nas.choice import Repeat
from nas.errors import UserError
from nas.spaces.model import ModelSpace
from nas.spaces.space import SPACES
from nas.values import Value, ValueChoice, is_whole


class Attention(nn.Module):
    """Self-attention of an open number of heads, `[B, tokens, embedding]` in and out."""

    def __init__(self, embedding: ValueChoice, heads: ValueChoice, head_dim: int) -> None:
        super().__init__()
        self.heads, self._head_dim = heads, head_dim
        inner = head_dim * heads
        self.query = elastic.Linear(embedding, inner)
        self.key = elastic.Linear(embedding, inner)
        self.value = elastic.Linear(embedding, inner)
        self.project = elastic.Linear(inner, embedding)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        shape = batch, tokens, int(self.heads.value), self._head_dim
        parts = (
            layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        out = functional.scaled_dot_product_attention(*parts)
        projected: Tensor = self.project(out.transpose(1, 2).reshape(batch, tokens, -1))
        return projected


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and beside a skip connection."""

    def __init__(
        self, embedding: ValueChoice, heads: ValueChoice, hidden: Value, head_dim: int
    ) -> None:
        super().__init__()
        self.norm_attention = elastic.LayerNorm(embedding)
        self.attention = Attention(embedding, heads, head_dim)
        self.norm_mlp = elastic.LayerNorm(embedding)
        self.mlp = nn.Sequential(
            elastic.Linear(embedding, hidden), nn.GELU(), elastic.Linear(hidden, embedding)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_attention(x))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out

    def droppable_paths(self) -> list[nn.Module]:
        """What drop-path may cut."""
        return [self.attention, self.mlp]


class Network(nn.Module):
    """Patches, position, layers, classifier: `[B, C, H, W]` to `[B, num_classes]`."""

    def __init__(self, space: "ViT") -> None:
        super().__init__()
        embedding = ValueChoice(space.embeddings, "embedding")
        self._patch_size = space.patch_size
        self.patches = elastic.Conv2d(
            space.in_channels, embedding, space.patch_size, stride=space.patch_size
        )
        self.position = elastic.Conv2d(embedding, embedding, 3, padding=1, groups=embedding)
        layers = []
        for number in range(1, max(space.depths) + 1):
            heads = ValueChoice(space.heads, f"layer{number}/heads")
            ratio = ValueChoice(space.mlp_ratios, f"layer{number}/mlp_ratio")
            layers.append(Layer(embedding, heads, ratio * embedding, space.head_dim))
        self.layers = Repeat(layers, space.depths, "depth")
        self.norm = elastic.LayerNorm(embedding)
        self.head = elastic.Linear(embedding, space.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        grid = self.patches(images)
        grid = grid + self.position(grid)
        tokens = self.layers(grid.flatten(2).transpose(1, 2))
        out: Tensor = self.head(self.norm(tokens).mean(1))
        return out


@SPACES.register("vit")
@dataclass(frozen=True, kw_only=True)
class ViT(ModelSpace):
    """The space and its sizes.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        patch_size: Pixels a side of a token.
        head_dim: Features of one head.
        embeddings: Dimensions to choose from, for all layers.
        depths: Numbers of layers to choose from.
        heads: Numbers of heads to choose from, for each layer.
        mlp_ratios: Hidden features of the MLP over the embedding dimension, for each layer.
    """

    in_channels: int
    num_classes: int
    patch_size: int = 4
    head_dim: int = 32
    embeddings: tuple[int, ...] = (192, 240, 288)
    depths: tuple[int, ...] = (6, 8, 10)
    heads: tuple[int, ...] = (3, 4, 6)
    mlp_ratios: tuple[float, ...] = (2, 3, 4)

    name: ClassVar[str] = "vit"

    def __post_init__(self) -> None:
        """Raises a `UserError` for ratios that do not give whole numbers."""
        for ratio in self.mlp_ratios:
            for embedding in self.embeddings:
                if not is_whole(ratio * embedding):
                    raise UserError(
                        f"space.mlp_ratios: {ratio:g} times an embedding of {embedding} is not a "
                        "whole number"
                    )

    def build_supernet(self) -> nn.Module:
        """The network with its choices."""
        return Network(self)
