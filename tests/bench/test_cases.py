import argparse

import pytest

from routerbench.bench.cases import Case, LayerCase, MemoryCase, ModelCase, RouterCase, Shape, cases
from routerbench.bench.options import add_options, checked

SPANS = {"hash": True, "soft": False, "token_choice": True}
COLUMNS = ("ti 6272 tokens E8 fp32", "ti 6272 tokens E32 fp32", "s 6272 tokens E8 fp32")
COLUMNS += ("ti 6272 tokens E8 bf16", "ti 6272 tokens E32 bf16", "s 1568 tokens E8 bf16")
COLUMNS += ("b 1568 tokens E8 fp32",)


def cases_of(words: str) -> list[Case]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return cases(checked(parser.parse_args(words.split())), SPANS)


def test_without_options_the_cases_are_those_of_the_docs() -> None:
    assert [str(case) for case in cases_of("")] == [
        *(f"layer token_choice {shape} group=batch" for shape in COLUMNS),
        "layer soft ti 6272 tokens E8 fp32 group=image",
        "layer soft ti 6272 tokens E8 bf16 group=image",
        "router ti 6272 tokens E8 fp32 group=batch",
        "router ti 6272 tokens E8 fp32 group=image",
        "model vit_small_patch16_224 token_choice 8 images E8 fp32 group=image",
        "model vit_small_patch16_224 token_choice 8 images E8 bf16 group=image",
        "memory token_choice ti 12544 tokens E32 fp32 group=batch",
    ]


def test_options_give_every_combination() -> None:
    assert cases_of("layer --sizes ti,b --experts 4,2 --routers soft") == [
        LayerCase(Shape(size, 6272, num_experts, "fp32"), "soft", "image")
        for size in ("ti", "b")
        for num_experts in (4, 2)
    ]


def test_options_are_for_all_kinds() -> None:
    shape = Shape("ti", 196, 8, "bf16")
    assert cases_of("layer router memory --tokens 196 --precision bf16 --routers hash --group image") == [
        LayerCase(shape, "hash", "image"),
        RouterCase(shape, ("hash",), "image"),
        MemoryCase(Shape("ti", 196, 32, "bf16"), "hash", "image"),
    ]


def test_a_router_of_single_images_is_not_in_a_case_of_several() -> None:
    assert [case.routers for case in cases_of("router") if isinstance(case, RouterCase)] == [
        ("hash", "token_choice"),
        ("hash", "soft", "token_choice"),
    ]
    assert [case.group for case in cases_of("router --routers soft")] == ["image"]


@pytest.mark.parametrize("kind", ["layer", "router", "memory", "model"])
def test_it_is_refused_where_several_are_asked_for(kind: str) -> None:
    message = "^group=batch would mix images: router=soft routes each alone, group=image$"
    with pytest.raises(ValueError, match=message):
        cases_of(f"{kind} --routers soft --group batch")


def test_a_model() -> None:
    words = "model --model vit --image-size 32 --batch-size 4 --placements stage --experts 2 --precision fp32"
    assert cases_of(words) == [ModelCase("vit", 32, 4, 2, "fp32", "token_choice", "image", ("stage",))]


def test_widths_of_a_shape() -> None:
    shape = Shape("s", 1568, 8, "fp32")
    assert (shape.width, shape.hidden, shape.num_images) == (384, 1536, 8)
