"""Cases: what is compared with its dense twin, in one row of measurements."""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from routerbench.bench.options import TOKENS_PER_IMAGE, Options

# One expert for a token and as many slots as tokens: the FLOPs of the dense twin.
TOP_K = 1
CAPACITY_FACTOR = 1.0
MLP_RATIO = 4
WIDTHS = {"ti": 192, "s": 384, "b": 768}


@dataclass(frozen=True)
class Shape:
    """An MLP of a ViT, a number of tokens and of experts, and the precision of the products."""

    size: str
    tokens: int
    num_experts: int
    precision: str

    @property
    def width(self) -> int:
        return WIDTHS[self.size]

    @property
    def hidden(self) -> int:
        return MLP_RATIO * self.width

    @property
    def num_images(self) -> int:
        return self.tokens // TOKENS_PER_IMAGE

    def __str__(self) -> str:
        return f"{self.size} {self.tokens} tokens E{self.num_experts} {self.precision}"


@dataclass(frozen=True)
class LayerCase:
    """Forward and backward of one layer, by backend."""

    kind: ClassVar[str] = "layer"
    shape: Shape
    router: str
    group: str

    def __str__(self) -> str:
        return f"{self.kind} {self.router} {self.shape} group={self.group}"


@dataclass(frozen=True)
class MemoryCase(LayerCase):
    """The peak memory of that alone."""

    kind: ClassVar[str] = "memory"


@dataclass(frozen=True)
class RouterCase:
    """Forward and backward of routers without experts, beside a dense layer."""

    kind: ClassVar[str] = "router"
    shape: Shape
    routers: tuple[str, ...]
    group: str

    def __str__(self) -> str:
        return f"{self.kind} {self.shape} group={self.group}"


@dataclass(frozen=True)
class ModelCase:
    """A training step of a whole model, by placement of its MoE layers."""

    kind: ClassVar[str] = "model"
    model: str
    image_size: int
    batch_size: int
    num_experts: int
    precision: str
    router: str
    group: str
    placements: tuple[str, ...]

    def __str__(self) -> str:
        batch = f"{self.batch_size} images" if self.batch_size > 1 else "1 image"
        experts = f"E{self.num_experts} {self.precision}"
        return f"{self.kind} {self.model} {self.router} {batch} {experts} group={self.group}"


Case = LayerCase | RouterCase | ModelCase

# The columns of docs/performance.md.
LAYERS = (
    Shape("ti", 6272, 8, "fp32"),
    Shape("ti", 6272, 32, "fp32"),
    Shape("s", 6272, 8, "fp32"),
    Shape("ti", 6272, 8, "bf16"),
    Shape("ti", 6272, 32, "bf16"),
    Shape("s", 1568, 8, "bf16"),
    Shape("b", 1568, 8, "fp32"),
)
SOFT_LAYERS = (Shape("ti", 6272, 8, "fp32"), Shape("ti", 6272, 8, "bf16"))
ROUTERS = (Shape("ti", 6272, 8, "fp32"),)
MEMORY = (Shape("ti", 12544, 32, "fp32"),)


def cases(options: Options, spans_images: dict[str, bool]) -> list[Case]:
    """The cases of the options, each kind in turn.

    `spans_images` says of every router whether its groups may hold several images; where the options do not
    name a group, the others get single images. Raises ValueError for a group that a router cannot take.
    """
    for name in options.routers or ():
        if options.group == "batch" and not spans_images[name]:
            raise ValueError(f"group=batch would mix images: router={name} routes each alone, group=image")
    makers = {"layer": _layers, "router": _routers, "model": _models, "memory": _memory}
    return [case for kind in options.kinds for case in makers[kind](options, spans_images)]


def _layers(options: Options, spans_images: dict[str, bool]) -> list[Case]:
    routers = options.routers or ("token_choice",)
    pairs = list(product(routers, _shapes(options, LAYERS)))
    if not options.routers and not _names_shapes(options):
        pairs += product(("soft",), SOFT_LAYERS)
    return [LayerCase(shape, router, _group(options, spans_images[router])) for router, shape in pairs]


def _memory(options: Options, spans_images: dict[str, bool]) -> list[Case]:
    pairs = product(options.routers or ("token_choice",), _shapes(options, MEMORY))
    return [MemoryCase(shape, router, _group(options, spans_images[router])) for router, shape in pairs]


def _routers(options: Options, spans_images: dict[str, bool]) -> list[Case]:
    names = options.routers or tuple(spans_images)
    able = {"batch": tuple(name for name in names if spans_images[name]), "image": names}
    groups = (options.group,) if options.group else ("batch", "image")
    pairs = product(_shapes(options, ROUTERS), groups)
    return [RouterCase(shape, able[group], group) for shape, group in pairs if able[group]]


def _models(options: Options, spans_images: dict[str, bool]) -> list[Case]:
    return [
        ModelCase(
            options.model or "vit_small_patch16_224",
            options.image_size or 224,
            options.batch_size or 8,
            num_experts,
            precision,
            router,
            options.group or "image",
            options.placements or ("last_2", "every_2"),
        )
        for router, num_experts, precision in product(
            options.routers or ("token_choice",),
            options.experts or (8,),
            options.precision or ("fp32", "bf16"),
        )
    ]


def _shapes(options: Options, usual: tuple[Shape, ...]) -> list[Shape]:
    """The usual ones, or every combination of what is named; what is not is that of the first usual one."""
    if not _names_shapes(options):
        return list(usual)
    first = usual[0]
    return [
        Shape(*values)
        for values in product(
            options.sizes or (first.size,),
            options.tokens or (first.tokens,),
            options.experts or (first.num_experts,),
            options.precision or (first.precision,),
        )
    ]


def _names_shapes(options: Options) -> bool:
    return any((options.sizes, options.tokens, options.experts, options.precision))


def _group(options: Options, spans_images: bool) -> str:
    return options.group or ("batch" if spans_images else "image")
