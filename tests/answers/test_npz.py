"""A stranger's .npz file, whatever is in it: little memory, and one clear line."""

from __future__ import annotations

import io
import re
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from classweight.cli import main


def npy(shape: str, content: bytes, dtype: str = "<f8") -> bytes:
    """Return an .npy file whose header is as given."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def packed(method: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.npy", data)
    return content.getvalue()


def claiming(content: bytes, size: int) -> bytes:
    """Return a zip file whose directory says that its first member unpacks to ``size``."""
    at = content.index(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", size) + content[at + 28 :]


HONEST = npy("(2,)", bytes(16))
HOSTILE = {
    "header-of-10^12": (packed(logits=npy(f"({10**12},)", bytes(16))), "are no float64"),
    "header-of-too-few": (packed(logits=npy("(1,)", bytes(16))), "whose 16 bytes are no float64 of shape (1,)"),
    "header-of-nothing": (packed(logits=npy("(1000000000000,)", b"", "<U0")), "'batch.npz'"),
    "negative-shape": (packed(logits=npy("(-1, -2)", bytes(16))), "'batch.npz'"),
    "zero-by-10^30": (packed(logits=npy(f"(0, {10**30})", b"")), "'batch.npz'"),
    "99-axes": (packed(logits=npy(str((1,) * 99), bytes(8))), "'batch.npz'"),
    "shape-of-words": (packed(logits=npy("('a',)", bytes(16))), "'batch.npz'"),
    "nested": (packed(logits=npy("(" * 50 + "1", bytes(16))), "'batch.npz'"),
    "code": (packed(logits=npy("__import__('os').system('exit')", bytes(16))), "'batch.npz'"),
    "records": (packed(logits=npy("(2,)", bytes(16), "V8"), targets=HONEST), "`logits` must be real numbers"),
    "objects": (packed(logits=npy("(2,)", b"cos\nsystem\n(S'true'\ntR.", "|O")), "which is an array of objects"),
    "version-2": (packed(logits=HONEST.replace(b"NUMPY\x01", b"NUMPY\x02")), "which is no array of numbers"),
    "no-npy": (packed(logits=b"hello"), "'batch.npz'"),
    "bomb": (claiming(packed(zipfile.ZIP_DEFLATED, logits=HONEST), 2**31), "larger together than 1024 MiB"),
    "false-directory": (claiming(packed(zipfile.ZIP_DEFLATED, logits=npy("(2,)", bytes(2**26))), 144), "'batch.npz'"),
    "other-packing": (packed(zipfile.ZIP_LZMA, logits=npy("(2,)", bytes(16))), "packed as numpy.savez does not"),
    "cut": (packed(logits=HONEST, targets=HONEST)[:-30], "be an .npz file"),
    "many": (
        packed(**{f"a{i}": b"" for i in range(20)}),
        "got 'a0', 'a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7', 'a8', 'a9' in",
    ),
}


@pytest.mark.parametrize(("content", "says"), list(HOSTILE.values()), ids=list(HOSTILE))
def test_a_hostile_file_costs_little_memory_and_one_clear_line(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "batch.npz").write_bytes(content)
    run = subprocess.run(
        [sys.executable, "-P", "-m", "classweight", "compare", "batch.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert re.fullmatch(r"classweight compare: `\w+` must .*\n", run.stderr)
    assert says in run.stderr


@pytest.mark.parametrize("member", ["logits", "targets"])
def test_a_byte_that_changed_is_seen(member: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "batch.npz"
    np.savez(path, logits=np.eye(3), targets=np.arange(3))
    content = bytearray(path.read_bytes())
    content[content.index(b"\n", content.index(f"{member}.npy".encode())) + 3] ^= 1
    path.write_bytes(content)
    assert main(["compare", str(path)]) == 2
    assert "Bad CRC-32" in capsys.readouterr().err


def test_what_is_packed_may_unpack_to_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez_compressed(
        tmp_path / "batch.npz", logits=np.zeros((5000, 20), ">f4", order="F"), targets=np.arange(5000) % 20
    )
    assert (tmp_path / "batch.npz").stat().st_size < 50_000
    assert main(["compare", str(tmp_path / "batch.npz")]) == 0
    assert re.search(rf"^ *{np.log(20):.6f}", capsys.readouterr().out, re.M)
