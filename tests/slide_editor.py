"""Synthetic slides with something wrong: edited where tifffile says that things are."""

from __future__ import annotations

import io

import tifffile

from tests.synthetic_slides import SlideRecipe, make_svs


class Editor:
    """Bytes of a slide of a recipe, which methods change in place.

    Tags are named as tifffile names them; each method gives the editor again.
    """

    def __init__(self, recipe: SlideRecipe) -> None:
        self.data = bytearray(make_svs(recipe))
        with tifffile.TiffFile(io.BytesIO(bytes(self.data))) as tiff:
            self.pages = [page.aspage() for page in tiff.pages]

    def tag(self, page: int, name: str) -> tifffile.TiffTag:
        return self.pages[page].tags[name]

    def rename_tag(self, page: int, name: str, code: int) -> Editor:
        at = self.tag(page, name).offset
        self.data[at : at + 2] = code.to_bytes(2, "little")
        return self

    def set_value(self, page: int, name: str, value: bytes) -> Editor:
        at = self.tag(page, name).valueoffset
        self.data[at : at + len(value)] = value
        return self

    def set_entry(self, page: int, name: str, index: int, value: int) -> Editor:
        tag = self.tag(page, name)
        size = {3: 2, 4: 4}[int(tag.dtype)]
        return self._put(tag.valueoffset + index * size, value.to_bytes(size, "little"))

    def set_count(self, page: int, name: str, count: int) -> Editor:
        return self._put(self.tag(page, name).offset + 4, count.to_bytes(4, "little"))

    def set_pointer(self, page: int, name: str, value: int) -> Editor:
        return self._put(self.tag(page, name).offset + 8, value.to_bytes(4, "little"))

    def in_tile(self, page: int, tile: int, find: bytes, put: bytes) -> Editor:
        begin, nbytes = self.pages[page].dataoffsets[tile], self.pages[page].databytecounts[tile]
        at = self.data.index(find, begin, begin + nbytes)
        return self._put(at, put)

    def _put(self, at: int, value: bytes) -> Editor:
        self.data[at : at + len(value)] = value
        return self
