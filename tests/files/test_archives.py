"""Folders of numpy archives; damaged archives at random are in test_fuzz.py."""

import contextlib
import copy
import io
import resource
import zipfile

import numpy as np
import pytest

from jnnk import InputError
from jnnk.files.archives import read_folder
from jnnk.report.top_images import Images
from jnnk.runs.overlap_files import LayerArrays, read_npz, write_npz


def test_a_folder_is_read_and_nothing_beside_it(tmp_path):
    path = tmp_path / "net.npz"
    secret = np.array([{}])  # would have to be unpickled
    np.savez(
        path, allow_pickle=True, **{"last/a": np.arange(3), "last/b": [2.0], "first/a": secret}
    )
    found = read_folder(path, "last/")
    assert list(found) == ["a", "b"] and (found["a"] == range(3)).all() and found["b"] == [2]
    assert read_folder(path, "none/") == {}
    with pytest.raises(InputError, match=r"net.npz: cannot be read .*[Oo]bject"):
        read_folder(path, "first/")


@pytest.mark.parametrize("shape", [(3, 2**30), (2**13, 2**20)])
def test_sizes_are_looked_at_before_anything_is_unpacked(tmp_path, shape):
    """A small file whose one array is gigabytes of zeros, and one that only says so."""
    path = tmp_path / "net.npz"
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("last/a.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(2 if shape[0] == 3 else 300):
            member.write(bytes(2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"net.npz: .*(unpacks to 300 MiB|header says)"):
        read_folder(path, "last/")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


def test_of_many_names_for_the_same_bytes_every_one_counts(tmp_path):
    path = tmp_path / "net.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        content = io.BytesIO()
        np.save(content, np.zeros(2**24, np.uint8))
        archive.writestr("last/a.npy", content.getvalue())
        (info,) = archive.infolist()
        for number in range(20):  # all of them point at the same place
            twin = copy.copy(info)
            twin.filename = f"last/b{number}.npy"
            archive.filelist.append(twin)
        archive._didModify = True
    assert path.stat().st_size < 2**17
    with pytest.raises(InputError, match=r"net\.npz: unpacks to 336 MiB"):
        read_folder(path, "last/")


@pytest.mark.parametrize("shape", [(True, 8, 8, 1), (8, True, 8), (-8, -8), (64.0,)])
def test_lengths_of_a_header_are_whole_numbers(tmp_path, shape):
    """NumPy takes True for 1, and the product of two negative lengths fits the bytes."""
    path = tmp_path / "net.npz"
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).ljust(117).encode()
    header = b"\x93NUMPY\x01\x00" + len(text + b"\n").to_bytes(2, "little") + text + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("last/a.npy", header + bytes(64))
    with pytest.raises(InputError, match=r"net.npz: cannot be read as a numpy archive \(.*shape"):
        read_folder(path, "last/")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_what_numpy_does_not_pack_is_not_unpacked(tmp_path, method):
    path = tmp_path / "net.npz"
    content = io.BytesIO()
    np.save(content, np.zeros(9))
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("last/a.npy", content.getvalue())
    with pytest.raises(InputError, match=r"net\.npz: .*packed in a way"):
        read_folder(path, "last/")


@pytest.mark.parametrize(
    ("shapes", "wrong"),
    [
        ({"overlap": (3, 4)}, "overlap"),
        ({"overlap": (4, 4)}, "degree"),
        ({"overlap": (3, 3, 1)}, "overlap"),
        ({"degree": (4,)}, "degree"),
        ({"loo_error": ()}, "loo_error"),
        (dict.fromkeys(LayerArrays._fields, (0,)), "overlap"),
    ],
)
def test_arrays_of_other_shapes_are_named(tmp_path, shapes, wrong):
    path = tmp_path / "layer.npz"
    whole = {"overlap": (3, 3), "degree": (3,), "loo_error": (3,)}
    np.savez(path, **{name: np.zeros(shape) for name, shape in {**whole, **shapes}.items()})
    with pytest.raises(InputError, match=rf"layer.npz: {wrong}: expected floats of shape \("):
        read_npz(path, LayerArrays)
    np.savez(path, **{name: np.zeros(shape, int) for name, shape in whole.items()})
    with pytest.raises(InputError, match="overlap: expected floats"):
        read_npz(path, LayerArrays)


@pytest.mark.parametrize(("height", "depth", "fits"), [(4, 3, True), (4, 1, True), (4, 2, False),
                                                      (0, 3, False)])  # fmt: skip
def test_pictures_are_grey_or_in_colour(tmp_path, height, depth, fits):
    path = tmp_path / "images.npz"
    write_npz(path, Images(np.arange(2), np.zeros((2, height, 5, depth), np.uint8)))
    with contextlib.nullcontext() if fits else pytest.raises(InputError, match="images: expected"):
        assert read_npz(path, Images).images.shape == (2, height, 5, depth)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", None])
def test_what_is_no_archive_is_named(tmp_path, content):
    path = tmp_path / "net.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"net.npz: cannot be read as a numpy archive"):
        read_folder(path, "last/")
