"""Feature files: one extractor's features of every segment of every video of a data set.

There are two forms with the same content and the same checksum: the source as released, and the store that
`python -m pamfn.convert features` makes of it once, a memory-mapped `.safetensors` file without pickle. A source is a
`.npy` file (a pickled dict `video -> array`), or a folder of plain arrays: a path with a `*` for the video's name.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pamfn.data.pickles import load_npy_dict
from pamfn.data.video_names import problem_of_name, shown, some
from pamfn.errors import InputError
from pamfn.files import regular, whole

STORE_VERSION = "1"
CONVERT = "python -m pamfn.convert features"
METADATA = {"version", "extractor", "names", "source_name", "source_size", "source_checksum", "checksum"}
CHECKSUM = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class FeatureSet:
    """One modality's features.

    arrays: {video: (t, c)} float16 or float32, read-only
    checksum: that of the source, also when `path` is the store made of it
    path: the file or folder they were read from
    extraction: how `pamfn.extract` made them (reading, extractor, weights); None where that is not recorded
    """

    arrays: dict[str, np.ndarray]
    checksum: str
    path: Path
    extraction: dict[str, Any] | None = None


def feature_name(dataset: str, modality: str, extractor: str) -> str:
    """Return what these features are called in a run's `data_files`, whichever file they were read from."""
    return f"features/{dataset}_{modality}_{extractor}"


def feature_file(
    data_dir: Path, dataset: str, modality: str, extractor: str, *, plain: Path | None = None, instead: str = ""
) -> Path:
    """Find the file with these features: the store if there is one, else the `.npy`, else the folder `plain`.

    Raises InputError when there is none of them (the sentence ends with what can be used `instead`), and when the store
    was made of another source than is there now.
    """
    npy = data_dir / "features" / f"{dataset}_{modality}_{extractor}.npy"
    store = npy.with_suffix(".safetensors")
    sources = [source for source in (npy, plain) if source and any(file.exists() for file in files_of(source))]
    if store.exists():
        if sources:
            _refuse_stale(store, sources[0])
        return store
    if sources:
        return sources[0]
    raise InputError(_missing(npy, dataset, modality, plain, instead))


def _missing(source: Path, dataset: str, modality: str, plain: Path | None, instead: str) -> str:
    names = {file.stem for end in ("npy", "safetensors") for file in source.parent.glob(f"{dataset}_*.{end}")}
    there = sorted(name.removeprefix(f"{dataset}_").rpartition("_")[::2] for name in names)
    listed = ", ".join(f"{other} ({extractor})" for other, extractor in there) or "none"
    others = ", ".join(dict.fromkeys(other for other, _ in there if other != modality))
    return (
        f"no {modality} features for {dataset}: looked for {source} (or .safetensors)"
        + (f" and {plain}" if plain else "")
        + f"; there are: {listed}. "
        "Put them there (README, 'Data')"
        + (f", or run without them: modalities=[{others}]" if others else "")
        + (f"; {instead}." if instead else ".")
    )


def _refuse_stale(store: Path, source: Path) -> None:
    metadata = _read_metadata(store)
    same = metadata["source_size"] == str(source_size(source))
    if same and source_time(source) != store.stat().st_mtime_ns:
        same = metadata["source_checksum"] == source_checksum(source)
    if not same:
        raise InputError(f"{store} was made of another file than {source}: run `{CONVERT}` again, or remove one.")


def file_checksum(path: Path) -> str:
    """Return BLAKE2b of a file's bytes, 32 hexadecimal digits; InputError when it cannot be read."""
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None


def files_of(source: Path) -> list[Path]:
    """Return the files of a source in the order of their names: the file itself, or those of a folder."""
    return sorted(source.parent.glob(source.name)) if "*" in source.name else [source]


def source_size(source: Path) -> int:
    """Return the number of bytes of a source."""
    return sum(file.stat().st_size for file in files_of(source))


def source_time(source: Path) -> int:
    """Return when a source was last changed, in nanoseconds; a store gets its source's time."""
    return max(file.stat().st_mtime_ns for file in files_of(source))


def source_checksum(path: Path) -> str:
    """Return the checksum of a source, or of the one a store was made of; a folder's covers names and contents."""
    if "*" in path.name:
        listed = "".join(f"{file.name} {file_checksum(file)}\n" for file in files_of(path))
        return hashlib.blake2b(listed.encode(), digest_size=16).hexdigest()
    if path.suffix == ".safetensors":
        return _read_metadata(path)["source_checksum"]
    return file_checksum(path)


def read_features(path: Path) -> FeatureSet:
    """Read the features of a `.npy` file or of a store.

    Several clips per segment (t, n, c) are averaged over n in float32; float64 becomes float32; anything that is not
    an array of segment features is left as it is, for `problems_of` to name.
    """
    if path.suffix == ".safetensors":
        return _read_store(path)
    arrays = {video: segments_of(array) for video, array in load_npy_dict(path).items()}
    return FeatureSet(arrays, file_checksum(path), path)


def segments_of(array: np.ndarray) -> np.ndarray:
    """Return a video's features as they are used: read-only (t, c), float16 or float32; others unchanged."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        if array.ndim == 3 and array.shape[1]:
            array = array.mean(axis=1, dtype=np.float32)
        wanted = np.float16 if array.dtype.itemsize == 2 else np.float32
        array = array.astype(wanted, copy=False)
    array.flags.writeable = False
    return array


def problems_of(features: FeatureSet, *, modality: str, width: int, videos: Iterable[str]) -> list[str]:
    """Say what keeps these videos from being used: one sentence per kind of problem, with the videos it concerns."""
    names_of: dict[str, list[str]] = {}
    wanted = list(videos)
    for video in wanted:
        if kind := _problem(features.arrays.get(video), width, modality):
            names_of.setdefault(kind, []).append(video)
    return [
        f"{features.path}: the {modality} features of {len(names)} of {len(wanted)} videos ({some(names)}) {kind}."
        for kind, names in names_of.items()
    ]


def _problem(array: np.ndarray | None, width: int, modality: str) -> str:
    if array is None:
        return "are missing: add them, or take these videos out of the label files"
    if array.dtype.kind != "f":
        return f"are of type {array.dtype}: expected float16 or float32"
    if array.ndim != 2:
        return f"have {array.ndim} dimensions: expected (segments, width) or (segments, clips, width)"
    if not len(array):
        return "have no segment: extract them again"
    if array.shape[1] != width:
        return f"are {array.shape[1]} wide: asked for {width} (features.{modality}.width)"
    if not np.isfinite(array).all():
        return "hold values that are not finite: extract them again"
    return ""


def write_store(features: FeatureSet, path: Path, *, extractor: str) -> None:
    """Write the features of a source as a store: packed segments, offsets, and where they come from.

    Raises InputError when the arrays are not all (t, c) of one width and type, or the store cannot be written.
    """
    kinds = {(array.dtype.name, *array.shape[1:]) for array in features.arrays.values()}
    if len(kinds) != 1 or not all(len(kind) == 2 and kind[0] in ("float16", "float32") for kind in kinds):
        listed = ", ".join(" x ".join(map(str, kind)) for kind in sorted(kinds, key=str)) or "nothing"
        raise InputError(
            f"{features.path} cannot become a store: needs (t, c) of one width, float16 or float32; found {listed}."
        )
    arrays = list(features.arrays.values())
    tensors = {"features": np.concatenate(arrays), "offsets": np.cumsum([0, *map(len, arrays)], dtype=np.int64)}
    metadata = {
        "version": STORE_VERSION,
        "extractor": extractor,
        "names": json.dumps(list(features.arrays)),
        "source_name": features.path.name,
        "source_size": str(source_size(features.path)),
        "source_checksum": features.checksum,
    }
    if features.extraction is not None:
        metadata["extraction"] = json.dumps(features.extraction, sort_keys=True)
    metadata["checksum"] = _payload_checksum(metadata, tensors["offsets"], tensors["features"])
    with whole(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))
        changed = source_time(features.path)
        os.utime(temporary, ns=(changed, changed))


def _read_store(path: Path) -> FeatureSet:
    metadata = _read_metadata(path)
    try:
        packed, offsets = _mapped(path)
        if metadata["checksum"] != _payload_checksum(metadata, offsets, packed):
            raise ValueError("its checksum does not match")
        names = _names(metadata["names"])
        if offsets[0] or offsets[-1] != len(packed) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("its videos do not follow one another")
        bounds = zip(names, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        arrays = {video: packed[start:end] for video, start, end in bounds}
        extraction = json.loads(metadata.get("extraction", "null"))
        if not isinstance(extraction, dict | None):
            raise ValueError("how it was extracted is no list of settings")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # whoever can write a checksum can write anything
        raise InputError(f"{path} is damaged ({shown(str(error))}): run `{CONVERT}` again, or remove it.") from None
    return FeatureSet(arrays, metadata["source_checksum"], path, extraction)


def _mapped(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Map a store's features (n, width) and the offsets (videos + 1) of its videos into memory.

    `_read_metadata` went before: `safe_open` has seen that both are within the file.
    """
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    arrays = []
    for name, dtypes, ndim in (("features", {"F16": "<f2", "F32": "<f4"}, 2), ("offsets", {"I64": "<i8"}, 1)):
        spot = header[name]
        if len(spot["shape"]) != ndim:
            raise ValueError(f"{name} have {len(spot['shape'])} dimensions")
        place = {"offset": start + spot["data_offsets"][0], "shape": tuple(spot["shape"])}
        arrays.append(np.memmap(path, dtypes[spot["dtype"]], mode="r", **place).view(np.ndarray))
    return arrays[0], arrays[1]


def _names(text: str) -> list[str]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("the names of its videos are no texts")
    if len(set(names)) < len(names):
        raise ValueError("two of its videos have one name")
    for name in names:
        if problem := problem_of_name(name):
            raise ValueError(f"the video name '{shown(name)}' {problem}")
    return names


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(regular(path), framework="numpy") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise InputError(f"no feature file: looked for {path}.") from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is damaged or cut off ({shown(str(error))}): run `{CONVERT}` again, or remove it."
        ) from None
    if metadata.get("version") != STORE_VERSION or not metadata.keys() >= METADATA:
        raise InputError(f"{path} was not written by this version of `{CONVERT}`: run it again, or remove the file.")
    if not CHECKSUM.fullmatch(metadata["source_checksum"]):
        raise InputError(f"{path} is damaged (the checksum of its source is none): run `{CONVERT}` again.")
    return metadata


def _payload_checksum(metadata: Mapping[str, str], offsets: np.ndarray, packed: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    described = sorted((key, text) for key, text in metadata.items() if key != "checksum")
    digest.update(json.dumps(described).encode())
    digest.update(offsets.tobytes())
    digest.update(np.ascontiguousarray(packed).view(np.uint8).data)
    return digest.hexdigest()
