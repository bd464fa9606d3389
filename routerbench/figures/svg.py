"""Pictures -> SVG that stands in the page, always the same for the same picture."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from routerbench.figures.picture import Picture
from routerbench.figures.style import VARIABLES
from routerbench.printable import printable

COORDINATES = ("d", "x", "y", "points")
REFERENCE = re.compile(r"(?:url\()?#([\w.-]+)\)?")
DECIMALS = re.compile(r"-?\d+\.\d{3,}")
BACKGROUND = "patch_1"  # which the page has of its own
NOT_DRAWN = ("font", "font-family")  # the page's own font


def svg(picture: Picture, name: str) -> str:
    """The picture as an SVG element whose ids begin with `name`, with its title and description."""
    root = _without_namespaces(ElementTree.fromstring(picture.drawn))
    for element in root.iter():
        _styled_by_attributes(element)
        _rounded(element)
    _rename(root, name)
    _spare_groups(root)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": "picture",
        "role": "img",
        "aria-labelledby": f"{name}-title",
        "aria-describedby": f"{name}-desc",
    }
    root.insert(0, _text("desc", f"{name}-desc", picture.description))
    root.insert(0, _text("title", f"{name}-title", picture.title))
    return ElementTree.tostring(root, encoding="unicode")


def _without_namespaces(root: Element) -> Element:
    """The drawing alone: in HTML the parser knows SVG by the names of its elements."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = None
    for parent in list(root.iter()):
        for child in [child for child in parent if _draws_nothing(child)]:
            parent.remove(child)
    return root


def _draws_nothing(element: Element) -> bool:
    is_empty = element.tag in ("metadata", "style") or element.get("style") == "fill: none"
    return is_empty or element.get("id") == BACKGROUND


def _styled_by_attributes(element: Element) -> None:
    """Attributes for the style: the page's policy forbids styles that it does not know by their hash."""
    for name, value in _declarations(element.attrib.pop("style", "")):
        if name == "font" and (size := re.search(r"([\d.]+)px", value)):
            element.set("font-size", size[1])
        if name not in NOT_DRAWN:
            element.set(name, value)
    for name in ("fill", "stroke"):
        if element.get(name) in VARIABLES:
            element.set(name, VARIABLES[element.attrib[name]])


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _rounded(element: Element) -> None:
    """A hundredth of a point is finer than any screen."""
    for name in COORDINATES:
        if name in element.attrib:
            element.set(name, _shorter(element.attrib[name]))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _shorter(numbers: str) -> str:
    return " ".join(DECIMALS.sub(lambda match: f"{float(match[0]):.2f}", numbers).split())


def _rename(root: Element, prefix: str) -> None:
    """The ids that something refers to, with the prefix, so that no two pictures of a page share one."""
    references = [
        (element, key, match[1])
        for element in root.iter()
        for key, value in element.attrib.items()
        if (key == "href" or value.startswith("url(")) and (match := REFERENCE.fullmatch(value))
    ]
    for element, key, name in references:
        element.set(key, element.attrib[key].replace(name, f"{prefix}-{name}"))
    used = {name for _, _, name in references}
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in used:
            element.set("id", f"{prefix}-{own}")


def _spare_groups(element: Element) -> None:
    """Put what stands in a group without attributes in the group's place."""
    children: list[Element] = []
    for child in element:
        _spare_groups(child)
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    element[:] = children


def _text(tag: str, name: str, text: str) -> Element:
    element = Element(tag, {"id": name})
    element.text = printable(text)
    return element
