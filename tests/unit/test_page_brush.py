"""The brush of the page in volumes: what is drawn changes, what is below it stays. Its modules run in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from medsegdiff import server

NODE = shutil.which("node")
PAGE = Path(server.__file__).parent / "page"
DRAWS = """
import { Masks } from "./masks.js";

globalThis.document = { baseURI: "http://localhost/", getElementById: () => ({}) };
const { correcting } = await import("./correct.js");
const { set, state, whenever } = await import("./store.js");
const { VolumeView } = await import("./volume.js");

const nv = {  // what the page asks of NiiVue, of a row of five voxels that it turns round
  volumes: [], opts: {}, drawBitmap: null,
  addVolume: (volume) => nv.volumes.push(volume),
  createEmptyDrawing: () => { nv.drawBitmap = new Uint8Array(5); },
  setPenValue: (value) => { nv.pen = value; },
};
const NVImage = { new: async () => ({ hdr: { dims: [3, 5, 1, 1] }, permRAS: [-1, 2, 3] }) };
const rest = { get: (of, name) => (name in of ? of[name] : () => {}) };
set({ edited: %s, visible: [true, true], brush: { ...state.brush, on: true } });
const structures = ["#ff0000", "#00ff00"].map((colour, i) => ({ colour, name: `${i}` }));
const drawing = correcting({ view: () => view });
const view = new VolumeView({ clientHeight: 1 }, drawing);
Object.assign(view, { nv: new Proxy(nv, rest), library: { NVImage, SLICE_TYPE: {} } });
await view.open({ told: { shape: [5, 1, 1], image: "image" }, image: async () => new ArrayBuffer(1), structures }, 0);
whenever(() => view.draw(state, state.edited));
const after = [], seen = () => Promise.resolve();
for (const [structure, erase, voxel] of %s) {
  set({ brush: { ...state.brush, structure, erase } });
  await seen();
  if (voxel === "undo") drawing.undo();
  else {
    if (voxel !== null) nv.drawBitmap[4 - voxel] = nv.pen;
    view.taken();
  }
  await seen();
  const painted = [...nv.drawBitmap].reverse().join("");
  after.push({ regions: [0, 1].map((of) => state.edited.plane(of).join("")), painted });
}
console.log(JSON.stringify(after));
"""
NESTED = "Masks.ofPlanes([[1, 1, 1, 1, 0], [0, 1, 1, 0, 0]])"
EXCLUSIVE = "new Masks({ count: 2, index: Uint8Array.from([1, 2, 2, 1, 0]) })"


Stroke: TypeAlias = tuple[int, bool, int | Literal["undo"] | None]
"""Of a structure; whether it erases; the voxel, or none; or what was drawn is undone."""


def drawn(tmp_path: Path, masks: str, strokes: list[Stroke]) -> list[tuple[str, str, str]]:
    """Make strokes: both structures after each, and what is seen."""
    if NODE is None:
        pytest.skip("node is not installed")
    for file in PAGE.glob("*.js"):
        shutil.copy(file, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "draws.js").write_text(DRAWS % (masks, json.dumps(strokes)), encoding="utf-8")
    ran = subprocess.run([NODE, "draws.js"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return [(*after["regions"], after["painted"]) for after in json.loads(ran.stdout)]


def test_regions_below_others_outlast_the_brush(tmp_path: Path) -> None:
    """A mouse button that is let go with nothing drawn once took away all that lay under another region."""
    strokes: list[Stroke] = [(0, False, None), (1, False, 0), (1, True, 1), (0, True, 2)]
    assert drawn(tmp_path, NESTED, strokes) == [
        ("11110", "01100", "12210"),
        ("11110", "11100", "22210"),  # drawn over another
        ("11110", "10100", "21210"),  # erased from another
        ("11010", "10100", "21210"),  # erased below another, which is still seen
    ]


def test_classes_take_voxels_from_each_other_and_are_erased_one_by_one(tmp_path: Path) -> None:
    strokes: list[Stroke] = [(1, False, 0), (0, False, 4), (1, True, 1), (1, True, 3)]
    assert drawn(tmp_path, EXCLUSIVE, strokes) == [
        ("00010", "11100", "22210"),
        ("00011", "11100", "22211"),
        ("00011", "10100", "20211"),
        ("00011", "10100", "20211"),  # of the other class: it stays, and is seen again
    ]


def test_strokes_are_undone_from_the_last_to_the_first(tmp_path: Path) -> None:
    """A button that was let go with nothing drawn is no stroke."""
    strokes: list[Stroke] = [(1, False, 4), (0, True, 1), (0, True, None), *((0, False, "undo"),) * 3]  # type: ignore[list-item]
    assert drawn(tmp_path, EXCLUSIVE, strokes) == [
        ("10010", "01101", "12212"),
        ("10010", "01101", "12212"),
        ("10010", "01101", "12212"),
        ("10010", "01101", "12212"),
        ("10010", "01100", "12210"),
        ("10010", "01100", "12210"),
    ]
