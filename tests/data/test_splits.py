"""Parts of a training set: which images they hold, and what is refused."""

import re

import pytest

from routerbench.data.splits import Part, chosen, places_of


def part(text: str, key: str = "data.train_split") -> Part:
    return Part.parse(key, text)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("train", range(200)),
        ("train[:]", range(200)),
        ("train[:99%]", range(198)),
        ("train[99%:]", range(198, 200)),
        ("train[99.5%:]", range(199, 200)),
        ("train[50:150]", range(50, 150)),
        ("train[10%:30]", range(20, 30)),
        ("train[:200]", range(200)),
    ],
)
def test_a_part_by_numbers_and_percentages(text: str, places: range) -> None:
    assert part(text).places(200) == places
    assert part(text).name == "train"


@pytest.mark.parametrize("num_images", range(4, 40))
def test_a_third_is_cut_alike_from_both_sides(num_images: int) -> None:
    train, held_out = places_of(part("train[:33%]"), part("train[33%:]"), num_images)
    assert (train.start, train.stop, held_out.stop) == (0, held_out.start, num_images)


@pytest.mark.parametrize("text", ["train[", "train[1]", "train[:-5]", "train[::2]", "train[a:]", "", "[1:2]"])
def test_what_is_no_part(text: str) -> None:
    expected = (
        f"data.train_split={text} is no part of a split: give for example train, train[:99%] or train[5000:]"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        part(text)


@pytest.mark.parametrize(
    "text", ["train[:201]", "train[200:]", "train[50:50]", "train[60%:40%]", "train[:101%]"]
)
def test_a_part_that_is_empty_or_beyond_the_set(text: str) -> None:
    expected = (
        f"data.train_split={text} is no part of the 200 images of train: give a start below its end, "
        "and an end of at most 200"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        part(text).places(200)


@pytest.mark.parametrize("text", ["train[98%:]", "train", "train[:1]"])
def test_images_in_common(text: str) -> None:
    expected = (
        f"data.train_split=train[:99%] and data.minival_split={text} have images in common: "
        "give for example train[:99%] and train[99%:]"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        places_of(part("train[:99%]"), part(text, "data.minival_split"), 200)


def test_a_minival_of_another_split() -> None:
    expected = (
        "data.minival_split=val[:10] is to be held out of the training set: give a part of train, "
        "for example train[99%:]"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        places_of(part("train"), part("val[:10]", "data.minival_split"), 200)


def test_parts_are_of_one_shuffled_set_in_its_order() -> None:
    train, held_out = (chosen(places, 1000).tolist() for places in (range(900), range(900, 1000)))
    assert sorted([*train, *held_out]) == list(range(1000))
    assert held_out == sorted(held_out)
    # Files come sorted by class: of ten classes of a hundred, all are held out.
    assert {index // 100 for index in held_out} == set(range(10))
    assert held_out == chosen(range(900, 1000), 1000).tolist()
