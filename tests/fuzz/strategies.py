"""What inputs are made of: edits of bytes, names that mean something else elsewhere, edits of documents."""

from __future__ import annotations

import copy
import json
import struct
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

DATA = st.DrawFn
INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)

# Bytes


@st.composite
def edited(draw: DATA, content: bytes, *, most: int = 4) -> bytes:
    """Damage bytes, as disks, transfers and programs do; beginnings more often, where headers are."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        end = max(len(data) - 1, 0)
        where = draw(st.integers(0, end) | st.integers(0, min(end, 120)))
        data = draw(st.sampled_from(EDITS))(draw, data, where)
    return bytes(data)


def _flipped(draw: DATA, data: bytearray, where: int) -> bytearray:
    if data:
        data[where] ^= 1 << draw(st.integers(0, 7))
    return data


def _number(draw: DATA, data: bytearray, where: int) -> bytearray:
    value, order, size = draw(st.sampled_from(INTERESTING)), draw(st.sampled_from("<>")), draw(st.sampled_from("BHI"))
    packed = struct.pack(order + size, value & ((1 << (8 * struct.calcsize(size))) - 1))
    data[where : where + len(packed)] = packed
    return data


def _cut(draw: DATA, data: bytearray, where: int) -> bytearray:
    return data[:where]


def _removed(draw: DATA, data: bytearray, where: int) -> bytearray:
    return data[:where] + data[where + draw(st.integers(1, 64)) :]


def _repeated(draw: DATA, data: bytearray, where: int) -> bytearray:
    return data[: where + draw(st.integers(1, 64))] + data[where:]


def _blank(draw: DATA, data: bytearray, where: int) -> bytearray:
    length = len(data[where : where + draw(st.integers(1, 64))])
    data[where : where + length] = bytes(length)
    return data


def _inserted(draw: DATA, data: bytearray, where: int) -> bytearray:
    return data[:where] + draw(st.binary(min_size=1, max_size=8)) + data[where:]


EDITS: Sequence[Callable[[DATA, bytearray, int], bytearray]] = (
    *(_flipped, _flipped, _number, _number),
    *(_cut, _removed, _repeated, _blank, _inserted),
)


def with_checksums(png: bytes) -> bytes:
    """Mend the checksums of a PNG, so that its damage reaches those who read the chunks."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


# Names

NAMES = (
    *("", ".", "..", "../../../../evil", "/evil", "a/b", "a\\b", "C:evil", "nul", " ", "a ", "-rf", "--help", "~"),
    *(
        "$_$",
        "a$_$b",
        "$\\frac{$",
        "[bold]x[/]",
        "[/b]",
        "%s",
        "{}",
        "{0}",
        "<img src=x>",
        "&amp;",
        "a'b",
        'a"b',
        "a#b",
    ),
    *("a\nb", "\x1b[31m", "\x00", "\udc80", "\u202ea", "🫀", "ü", unicodedata.normalize("NFD", "ü"), "x" * 300),
    *(
        "ü" * 120,
        "a_seg",
        "a_mask",
        "a_0000",
        "IMG_0001",
        ".hidden",
        "a.nii",
        "a.png",
        "a,b",
        "a;b",
        "=1+1",
        "0",
        "None",
    ),
)
"""Names that have meant something else to some program."""


def names() -> st.SearchStrategy[str]:
    """Name a case, a class or a key as somebody may have."""
    return st.sampled_from(NAMES) | st.text(max_size=12)


def stems() -> st.SearchStrategy[str]:
    """Name a file, without its ending, as a file system takes it."""
    return names().map(_as_stem).filter(lambda name: name not in ("", ".", ".."))


def _as_stem(name: str) -> str:
    kept = name.replace("/", "").replace("\0", "").encode("utf-8", "surrogateescape" if _escaped(name) else "ignore")
    return kept[:200].decode("utf-8", "surrogateescape")


def _escaped(name: str) -> bool:
    return all(not 0xD800 <= ord(letter) <= 0xDFFF or 0xDC80 <= ord(letter) <= 0xDCFF for letter in name)


# JSON and YAML


def values() -> st.SearchStrategy[Any]:
    """Give what JSON may hold."""
    numbers = st.sampled_from((0, 1, -1, 2, 255, 256, 10**30, 0.5, 1e308, float("nan"), float("inf"))) | st.integers()
    plain = st.none() | st.booleans() | numbers | names()
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names(), inner, max_size=3), max_leaves=4
    )


@st.composite
def changed(draw: DATA, document: Any, *, most: int = 3) -> Any:
    """Change some places of a document: another value, a key less, another key, a key more, an entry twice."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(document))
        if not places:
            return draw(values())
        holder, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(("value", "value", "remove", "rename", "add", "twice")))
        if kind == "remove":
            del holder[key]
        elif kind == "twice" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind in ("rename", "add") and isinstance(holder, dict):
            holder[draw(names())] = holder.pop(key) if kind == "rename" else draw(values())
        else:
            holder[key] = draw(values())
    return document


def _places(document: Any) -> Any:
    held = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in held:
        yield document, key
        yield from _places(value)


@st.composite
def json_texts(draw: DATA, document: Any) -> bytes:
    """Write a changed document, or change how it is written."""
    if draw(st.integers(0, 3)):
        text = json.dumps(draw(changed(document)), ensure_ascii=draw(st.booleans()))
        return text.encode("utf-8", "surrogatepass")
    return draw(edited(json.dumps(document).encode()))
