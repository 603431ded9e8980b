"""Bundles that are refused: damaged, dangerous, or of parts that do not fit each other."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import packed, sealed

import recur.bundle
from recur.bundle import BundleError, read_bundle


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "spoiled"))


# ------------------------------------------------------------------------------------------------------------- refused


def test_other_task(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="a model for 'caption'; expected one for 'sentiment'; choose another model"):
        read_bundle(tiny_bundle, task="sentiment")


def test_newer_format(folder: Path) -> None:
    sealed(folder, lambda meta: meta.update(format=2))
    with pytest.raises(BundleError, match="format 2 is newer than 1, which this recur reads; upgrade recur"):
        read_bundle(folder)
    # A newer format may have other keys and hashes: that it is newer is what must be said.
    (folder / "bundle.json").write_text('{"format": 3}')
    with pytest.raises(BundleError, match="upgrade recur"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "encoder.onnx", "tokenizer.json", "CARD.md"])
@pytest.mark.parametrize("how", ["truncated", "tampered", "missing", "empty"])
def test_files_that_are_not_what_was_written(folder: Path, name: str, how: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "tampered":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2] if how == "truncated" else b"")
    said = "is missing" if how == "missing" else "is not what was written"
    with pytest.raises(BundleError, match=rf"{name} {said}"):
        read_bundle(folder)


def test_bundle_json_that_was_changed_by_hand(folder: Path) -> None:
    path = folder / "bundle.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"length_penalty": 0.5', '"length_penalty": 0.6'))
    with pytest.raises(BundleError, match=r"bundle\.json is not what was written"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "broken JSON"),
        ('{"format": 1, "task"', "broken JSON"),
        ('{"format": NaN}', "broken JSON"),
        ('{"format": 1e400}', "1e400 is too great a number"),
        ("[1]", "no JSON object"),
        ("{}", "has format None"),
        ('{"format": true}', "has format True"),
        ('{"format": 0}', "has format 0"),
        ('{"format": 1}', "no 'task'"),
        ('{"format": 1, "task": 3}', "int as 'task'; expected a text"),
        ("[" * 100_000, "broken JSON"),
        ("\udcff", "broken JSON"),
    ],
)
def test_broken_bundle_json(folder: Path, text: str, said: str) -> None:
    (folder / "bundle.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=said):
        read_bundle(folder)


@pytest.mark.parametrize("key", ["task", "name", "version", "files", "sha256"])
def test_missing_keys(folder: Path, key: str) -> None:
    sealed(folder)
    meta = json.loads((folder / "bundle.json").read_text())
    del meta[key]
    (folder / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(BundleError, match=f"no '{key}'"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/passwd", "..", "a/b", "a\\b", "C:x", "", "a\x00b", "a\nb"])
def test_names_that_climb_out(folder: Path, name: str) -> None:
    sealed(folder, lambda meta: meta["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        read_bundle(folder)


def test_links_that_climb_out(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (folder / "CARD.md").rename(secret)
    (folder / "CARD.md").symlink_to(secret)
    with pytest.raises(BundleError, match=r"CARD\.md leads out of the bundle"):
        read_bundle(folder)


def test_extra_files_and_folders(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"left by a file manager")
    assert read_bundle(folder).name == "tiny"
    (folder / "run.py").write_text("print('hello')")
    with pytest.raises(BundleError, match=r"has 'run\.py', which its bundle\.json does not list"):
        read_bundle(folder)
    (folder / "run.py").unlink()
    (folder / "more").mkdir()
    with pytest.raises(BundleError, match="more is no plain file"):
        read_bundle(folder)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        read_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"not a bundle: bundle\.json is missing"):
        read_bundle(tmp_path)
    text = tmp_path / "model.zip"
    text.write_text("hello")
    with pytest.raises(BundleError, match="not a bundle"):
        read_bundle(text)


def test_absurd_sizes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recur.bundle, "MAX_META", 100)
    with pytest.raises(BundleError, match=r"bundle\.json has [\d,]+ bytes; at most 100 are read"):
        read_bundle(folder)
    monkeypatch.undo()
    monkeypatch.setattr(recur.bundle, "MAX_FILE", 1000)
    with pytest.raises(BundleError, match="at most 1,000 are read"):
        read_bundle(folder)


# ---------------------------------------------------------------------------------------------------------------- zips


def test_truncated_zip(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "m.zip")
    data = path.read_bytes()
    for size in (4, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(BundleError, match=r"broken \.zip|cannot be read"):
            read_bundle(path)


def test_zip_with_a_flipped_bit(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "m.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("weights.safetensors").header_offset
    data[at + 300] ^= 4
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"cannot be read|cannot be unpacked|not what was written"):
        read_bundle(path)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "sub/evil.txt"])
def test_zip_names_that_climb_out(folder: Path, tmp_path: Path, name: str) -> None:
    path = packed(folder, tmp_path / "m.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        read_bundle(path)


@pytest.mark.parametrize("prefix", ["../", "./", "/", "../../"])
def test_zip_folder_that_climbs_out(folder: Path, tmp_path: Path, prefix: str) -> None:
    path = packed(folder, tmp_path / "m.zip", "@@/")
    data = path.read_bytes().replace(b"@@/", prefix.rjust(3, "/").encode()[:3])
    path.write_bytes(data)
    with pytest.raises(BundleError, match="leads out of the bundle"):
        read_bundle(path)


def test_zip_bomb(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "m.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.bin", bytes(8_000_000))
    with pytest.raises(BundleError, match=r"bomb\.bin unpacks to 8,000,000 bytes from"):
        read_bundle(path)


def test_zip_that_lies_about_a_size(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "m.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        true = archive.getinfo("weights.safetensors").file_size
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(signature)
        while at >= 0:
            if struct.unpack_from("<I", data, at + offset)[0] == true:
                struct.pack_into("<I", data, at + offset, 100)
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        read_bundle(path)


def test_zip_with_too_many_files_links_or_twins(folder: Path, tmp_path: Path) -> None:
    many = packed(folder, tmp_path / "many.zip")
    with zipfile.ZipFile(many, "a") as archive:
        for number in range(70):
            archive.writestr(f"{number}.txt", "x")
    with pytest.raises(BundleError, match="at most 64"):
        read_bundle(many)
    twins = packed(folder, tmp_path / "twins.zip")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(twins, "a") as archive:
        archive.writestr("CARD.md", "another")
    with pytest.raises(BundleError, match=r"CARD\.md is in it twice"):
        read_bundle(twins)
    link = packed(folder, tmp_path / "link.zip")
    with zipfile.ZipFile(link, "a") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(BundleError, match="link is a link"):
        read_bundle(link)


def test_encrypted_zip(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "m.zip")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(path)


# ------------------------------------------------------------------------------------- parts that do not fit each other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta: meta.update(hidden=9), r"of shape \[.*\]; expected"),
        (lambda meta: meta.update(layers=3), r"has no 'rnn\.weight_ih_l2'"),
        (lambda meta: meta.update(layers=1), r"has 'rnn\.bias_hh_l1', which a captioner of these sizes"),
        (lambda meta: meta.update(layers=1000), "1000 layers"),
        (lambda meta: meta.update(attention=0), "of shape"),
        (lambda meta: meta.update(cell="gru"), "of shape"),
        (lambda meta: meta.update(cell="transformer"), "cell 'transformer'; expected one of rnn, rnn_relu, lstm, gru"),
        (lambda meta: meta.update(hidden=0), "hidden 0"),
        (lambda meta: meta.update(hidden=True), "hidden True"),
        (lambda meta: meta.update(hidden=8.0), r"hidden 8\.0"),
        (lambda meta: meta.pop("embedding"), "embedding None"),
        (lambda meta: meta.update(vocabulary_size=99), "has 22 tokens"),
        (lambda meta: meta.update(vocabulary_sha256="0"), "not the one that the model was trained with"),
        (lambda meta: meta.update(languages=["en"]), "languages"),
        (lambda meta: meta.pop("languages"), "languages None"),
        (lambda meta: meta.pop("encoder"), "no 'encoder'"),
        (lambda meta: meta["encoder"].update(channels=7), r"start\.weight of shape"),
        (lambda meta: meta["encoder"].update(size=10**6), "an encoder for 1000000 pixels"),
        (lambda meta: meta["encoder"].update(mean="x"), "mean 'x'; expected one number for each of 3 channels"),
        (lambda meta: meta["encoder"].update(mean=[1, 2]), r"mean \[1, 2\]"),
        (lambda meta: meta["encoder"].update(mean=[0, 0, 10**400]), "mean"),
        (lambda meta: meta["encoder"].update(mean=[True, 0, 0]), "mean"),
        (lambda meta: meta["encoder"].update(std=[1, 2]), r"std \[1, 2\]"),
        (lambda meta: meta["encoder"].update(std=[1, 0, 1]), r"std \[1, 0, 1\]"),
        (lambda meta: meta["encoder"].update(std=["a", "b", "c"]), "std"),
        (lambda meta: meta["encoder"].update(input=["pixels"]), r"input \['pixels'\]; expected a name"),
        (lambda meta: meta["encoder"].update(output=3), "output 3; expected a name"),
        (lambda meta: meta["encoder"].update(file="../x.onnx"), r"encoder\.onnx is missing"),
        (lambda meta: meta.pop("decode"), "no 'decode'"),
        (lambda meta: meta["files"].pop("weights.safetensors"), "does not list|has 'weights"),
        (lambda meta: meta["files"].update({"bundle.json": "0"}), "without a SHA-256"),
        (lambda meta: meta["files"].update({"CARD.md": 5}), "without a SHA-256"),
    ],
)
def test_sizes_that_do_not_fit(folder: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        read_bundle(sealed(folder, change))


def test_no_encoder(folder: Path) -> None:
    (folder / "encoder.onnx").unlink()
    sealed(folder, lambda meta: meta["files"].pop("encoder.onnx"))
    with pytest.raises(BundleError, match=r"encoder\.onnx is missing"):
        read_bundle(folder)


def test_broken_tokenizer(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json: broken JSON"):
        read_bundle(sealed(folder, tokenizer=b"{"))


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def entry(start: int, stop: int, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        ((10**18).to_bytes(8, "little") + b"{}", "a header of 1,000,000,000,000,000,000 bytes"),
        ((2).to_bytes(8, "little") + b"{x", "broken header"),
        ((2).to_bytes(8, "little") + b"[]", "no JSON object"),
        (header(a=entry(0, 8)) + bytes(7), "does not fit its place"),
        (header(a=entry(0, 8)) + bytes(9), "1 bytes after the last tensor"),
        (header(a=entry(0, 8, (3,))) + bytes(8), "does not fit its place"),
        (header(a=entry(4, 12)) + bytes(12), "gap or overlap at byte 0"),
        (header(a=entry(0, 8), b=entry(4, 12)) + bytes(12), "gap or overlap at byte 8"),
        (header(a=entry(0, 8, (-1, -2))) + bytes(8), "expected whole numbers"),
        (header(a=entry(0, 8, (2.0,))) + bytes(8), "expected whole numbers"),
        (header(a=entry(0, 8, dtype="BF16")) + bytes(8), "not described as expected"),
        (header(a=[1]) + bytes(8), "not described as expected"),
        (header(a={"dtype": "F32"}) + bytes(8), "not described as expected"),
        (header(a=entry(0, 4, (2, 2), "I8")) + bytes(4), "8-bit without one scale a row"),
        (header(a=entry(0, 8)) + np.array([1, np.nan], "<f4").tobytes(), "not finite"),
        (header(a=entry(0, 8)) + bytes(8), "has no 'start.weight'"),
    ],
)
def test_broken_weights(folder: Path, data: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=rf"weights\.safetensors: .*{said}|weights\.safetensors {said}"):
        read_bundle(sealed(folder, weights=data))
