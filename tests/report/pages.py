"""A small table with odd names, and pages taken apart, for the tests of reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from qcompile.assign.table import Cast, Check, Entry, Format, Group, Pair, SensitivityTable, Uniform

ODD = '<a&b>"'  # as a name
VOID = {"meta", "br", "link", "img"}


def odd_table(**changes) -> SensitivityTable:
    """in -> <a&b>" -> c, which the tail adds to <a&b>" (one tie) -> last; the last has no w4a8."""
    return SensitivityTable(
        **{
            "model": "models/<m>.onnx",
            "model_sha256": "00",
            "target": "x86",
            "device": "CPU <1>",
            "metric": "kl",
            "samples": 8,
            "formats": (Format("fp32", "float32", 4), Format("int8", "uint8", 1), Format("w4a8", "uint8", 1)),
            "groups": (
                Group(ODD, (ODD, "tail"), entries(1e-3, 0.01), f"tail adds {ODD}"),
                Group("c", ("c",), entries(1e-5, 2e-5)),
                Group("last", ("last",), _without(entries(0.0, 3e-2), "w4a8"), missing={"w4a8": "too <small>"}),
            ),
            "casts": (
                Cast("in", 100, "", (ODD,)),
                Cast(ODD, 50, ODD, ("c",)),
                Cast("c", 60, "c", (ODD,)),
                Cast("tail", 70, ODD, ("last",)),
            ),
            "cast_overhead": 1e-7,
            "rest_seconds": 5e-7,
            "reads": {ODD: ("in",), "c": (ODD,), "tail": ("c",), "last": ("tail",)},
            "sources": {ODD: ("in",), "c": (ODD,), "tail": ("c", ODD), "last": ("tail",), "": ("last",)},
            "uniform": {"fp32": Uniform(0.0, None, 1200), "int8": Uniform(0.0012, 9e-6, 300)},
            "notes": ("a <note>",),
        }
        | changes
    )


def with_checks(table_changes=None) -> SensitivityTable:
    formats = {ODD: "int8", "c": "w4a8", "last": "int8"}
    return odd_table(
        checks=(Check("assigned", formats, 0.002, 0.0031),),
        pairs=(Pair((ODD, "c"), ("int8", "int8"), 0.0005),),
        **(table_changes or {}),
    )


def entries(int8: float, w4a8: float) -> dict[str, Entry]:
    return {
        "fp32": Entry(0.0, 8e-6, 400, 0.0, measured=True),
        "int8": Entry(int8, 2e-6, 100, 2 * int8, measured=True, scores={"sqnr": 40.0}),
        "w4a8": Entry(w4a8, 1.5e-6, 60, None),
    }


def _without(found: dict[str, Entry], name: str) -> dict[str, Entry]:
    return {key: entry for key, entry in found.items() if key != name}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.attributes.get(name) or ""

    def all(self, tag: str, of: str = "") -> list[Element]:
        """Elements below this one, in order. of: one of their classes."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and (not of or of in child["class"].split()):
                    found.append(child)
                found += child.all(tag, of)
        return found

    def by_id(self, name: str) -> Element:
        (found,) = [e for e in self._every() if e["id"] == name]
        return found

    def own(self, tag: str) -> Element:
        return next(e for e in self.children if isinstance(e, Element) and e.tag == tag)

    @property
    def text(self) -> str:
        return " ".join("".join(c if isinstance(c, str) else f" {c.text} " for c in self.children).split())

    def _every(self) -> list[Element]:
        below = [c for c in self.children if isinstance(c, Element)]
        return [*below, *(e for child in below for e in child._every())]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].children.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parsed(page: str) -> Element:
    """The page as a tree; every element must be closed."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert len(parser.open) == 1, f"<{parser.open[-1].tag}> is not closed"
    return parser.open[0]
