import struct

import pytest

from ssl_guard.data import tfrecord_io
from ssl_guard.errors import BadInput

ROWS = [{"text": b"never shown", "copy": 0}, {"text": b"", "copy": 3}, {"text": b"x" * 40}]


@pytest.fixture
def frames():
    return [tfrecord_io.frame(tfrecord_io.serialise(row)) for row in ROWS]


def count_before_the_error(path):
    """Returns the number of readable rows, and the error that ends them or None."""
    rows, reader = 0, tfrecord_io.read(path)
    try:
        for _ in reader:
            rows += 1
    except BadInput as error:
        return rows, str(error)
    return rows, None


def test_a_file_cut_off_anywhere_is_refused_at_its_last_record(tmp_path, frames):
    data, path = b"".join(frames), tmp_path / "rows.tfrecord"
    ends = [0, len(frames[0]), len(frames[0] + frames[1]), len(data)]
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = max(number for number, end in enumerate(ends) if end <= length)
        rows, error = count_before_the_error(path)
        assert rows == whole
        if length in ends:
            assert error is None
        else:
            assert error.startswith(f"record {whole} of {path} is corrupt; ")
            assert "never shown" not in error


def test_no_changed_byte_goes_unnoticed(tmp_path, frames):
    data, path = b"".join(frames), tmp_path / "rows.tfrecord"
    ends = [len(frames[0]), len(frames[0] + frames[1]), len(data)]
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        damaged = next(number for number, end in enumerate(ends) if place < end)
        rows, error = count_before_the_error(path)
        assert rows == damaged and f"record {damaged} of" in error


@pytest.mark.parametrize("value", [0.1, 1.0, 0.0, -3e-39, 3.4e38, float("nan")])
def test_a_float_has_the_bits_of_its_float32(value):
    found = tfrecord_io.parse(tfrecord_io.serialise({"score": value, "text": b"", "copy": 1}))
    assert struct.pack("<f", found["score"]) == struct.pack("<f", value)
    assert found["text"] == b"" and found["copy"] == 1 and isinstance(found["copy"], int)
