"""Near-duplicate images of two sets: found by a difference hash, confirmed pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.image_cache import chunk_size

_ROWS, _COLUMNS = 8, 9
_SMALLEST_STEP = 0.5
_DISTANCE = 5
_BANDS = _DISTANCE + 1
_BAND_BITS = 64 // _BANDS
_WINDOW = 512
_COMPARED = 4
_CONTRAST_SHARE = 0.1
_DIFFERENCE = (1.0, 6.0)
_QUERIES_AT_A_TIME = 1024
_DISTANCE_SHIFT = 32  # a pair as one number, so that sorting it sorts by query, then distance
_QUERY_SHIFT = 36

Images = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


def near_duplicates(images: Images, others: Images, hashes: Hashes, other_hashes: Hashes) -> Indices:
    """For each of ``images`` (N, H, W, C) the index of one of ``others`` that is nearly the same, or -1: (N,).

    Candidates are those whose :func:`difference_hashes` differ in at most 5 of 64 bits. The nearest four of them are
    compared: nearly the same means a mean absolute difference of at most a tenth of the image's own contrast (its mean
    absolute deviation from its mean), at least 1 and at most 6 gray levels. So a copy that was compressed, scaled or
    slightly brightened counts, and another digit of the same shape does not; a mirrored or turned copy is not found.

    >>> images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), dtype=np.uint8)
    >>> near_duplicates(images[1:2], images, difference_hashes(images[1:2]), difference_hashes(images)).tolist()
    [1]
    """
    queries, candidates = _candidates(hashes, other_hashes)
    place = _place(queries)
    found = np.full(len(images), -1)
    for turn in range(_COMPARED):
        open_ones = (place == turn) & (found[queries] < 0)
        query, candidate = queries[open_ones], candidates[open_ones]
        same = _nearly_same(images, others, query, candidate)
        found[query[same]] = candidate[same]
    return found


def difference_hashes(images: Images) -> Hashes:
    """A 64-bit difference hash of each of ``images`` (N, H, W, C): (N,).

    The image is averaged to 8×9 gray values; a bit says that a value is brighter than the one to its left, by more
    than half a gray level so that flat areas give zeros. The idea: N. Krawetz, "Kind of like that", 2013,
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html

    >>> ramp = np.tile(np.arange(0, 90, dtype=np.uint8), (80, 1))[None, ..., None]
    >>> hex(difference_hashes(ramp)[0])
    '0xffffffffffffffff'
    """
    _, height, width, channels = images.shape
    rows = _averaging(height, _ROWS)
    columns = np.repeat(_averaging(width, _COLUMNS), channels, axis=1) / np.float32(channels)
    hashes = np.empty(len(images), np.uint64)
    rows_each = chunk_size(height * width * channels)
    for start in range(0, len(images), rows_each):
        some = images[start : start + rows_each]
        narrow = some.astype(np.float32).reshape(-1, width * channels) @ columns.T
        small = rows @ narrow.reshape(len(some), height, _COLUMNS)
        bits = np.diff(small, axis=2) > _SMALLEST_STEP
        hashes[start : start + len(some)] = _packed(bits.reshape(len(some), 64))
    return hashes


def _averaging(size: int, cells: int) -> NDArray[np.float32]:
    """(cells, size): each row averages an equal share of ``size`` pixels, parts of pixels included."""
    borders = np.arange(cells + 1) * (size / cells)
    pixels = np.arange(size)
    overlap = np.minimum(borders[1:, None], pixels + 1) - np.maximum(borders[:-1, None], pixels)
    weights: NDArray[np.float32] = (np.maximum(overlap, 0) * (cells / size)).astype(np.float32)
    return weights


def _candidates(hashes: Hashes, others: Hashes) -> tuple[Indices, Indices]:
    """Pairs (index, other index) of hashes at most ``_DISTANCE`` bits apart, by index, the nearest first.

    Two such hashes are equal in one of six bands of 10 bits at least. For each band the others are sorted with that
    band in front, so that its equals lie together. Where one band has very many equals (plain backgrounds), only the
    512 nearest in that order are looked at: equal hashes are among them, and the work stays linear.
    """
    mixed, other_mixed = _spread(hashes), _spread(others)
    found = [
        _equal_bands(_turn(mixed, band * _BAND_BITS), _turn(other_mixed, band * _BAND_BITS)) for band in range(_BANDS)
    ]
    codes = np.unique(np.concatenate(found))
    return codes >> _QUERY_SHIFT, codes & ((1 << _DISTANCE_SHIFT) - 1)


def _equal_bands(hashes: Hashes, others: Hashes) -> Indices:
    """Codes (index, distance, other index) of the nearest pairs that are equal in their highest bits."""
    low = np.uint64((1 << (64 - _BAND_BITS)) - 1)
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    middle = np.searchsorted(ordered, hashes)
    first = np.maximum(np.searchsorted(ordered, hashes & ~low), middle - _WINDOW // 2)
    last = np.minimum(np.searchsorted(ordered, hashes | low, "right"), middle + _WINDOW // 2)
    found = [np.empty(0, np.int64)]
    for start in range(0, len(hashes), _QUERIES_AT_A_TIME):
        counts = (last - first)[start : start + _QUERIES_AT_A_TIME]
        query = np.repeat(np.arange(start, start + len(counts)), counts)
        position = first[query] + np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        distance = np.bitwise_count(hashes[query] ^ ordered[position]).astype(np.int64)
        near = distance <= _DISTANCE
        codes = (query << _QUERY_SHIFT) | (distance << _DISTANCE_SHIFT) | order[position]
        codes = np.sort(codes[near])
        found.append(codes[_place(codes >> _QUERY_SHIFT) < _COMPARED])
    return np.concatenate(found)


def _place(ordered: Indices) -> Indices:
    """The place of each among its equals."""
    return np.arange(len(ordered)) - np.searchsorted(ordered, ordered)


def _spread(hashes: Hashes) -> Hashes:
    """The bits in another order, so that each band has bits from all over the image."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    order = np.random.default_rng(0).permutation(64)
    return _packed(bits[:, order])


def _packed(bits: NDArray[Any]) -> Hashes:
    """(N, 64) bits as one number each, the first bit the highest."""
    packed = np.ascontiguousarray(np.packbits(bits, axis=1))
    return packed.view(">u8")[:, 0].astype(np.uint64)


def _turn(hashes: Hashes, bits: int) -> Hashes:
    return hashes if bits == 0 else (hashes << np.uint64(bits)) | (hashes >> np.uint64(64 - bits))


def _nearly_same(images: Images, others: Images, first: Indices, second: Indices) -> NDArray[np.bool_]:
    same = np.empty(len(first), np.bool_)
    rows_each = chunk_size(images[:1].size)
    for start in range(0, len(first), rows_each):
        part = slice(start, start + rows_each)
        a, b = images[first[part]].astype(np.float32), others[second[part]].astype(np.float32)
        contrast = np.abs(a - a.mean(axis=(1, 2, 3), keepdims=True)).mean(axis=(1, 2, 3))
        limit = np.clip(_CONTRAST_SHARE * contrast, *_DIFFERENCE)
        same[part] = np.abs(a - b).mean(axis=(1, 2, 3)) <= limit
    return same
