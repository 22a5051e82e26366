"""Reads and writes TFRecord files without tensorflow: tf.train.Example messages with CRCs.

A frame is uint64 size, uint32 masked CRC32C of the size, the message, uint32 masked CRC of the
message. A message is a dict of str features: an int becomes an int64 list of one, a float a float
list of one, bytes a bytes list of one. Text is UTF-8 bytes.
"""

import contextlib
import errno
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from ssl_guard.errors import BadInput

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
# No space, no permission, or a file where a folder should be
DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST,
)  # fmt: skip


def serialise(row: Mapping[str, int | float | bytes]) -> bytes:
    """Serialises a row as a message. The same row gives the same bytes."""
    example = Example()
    feature = example.features.feature
    for name, value in row.items():
        if isinstance(value, bytes):
            feature[name].bytes_list.value.append(value)
        elif isinstance(value, float):
            feature[name].float_list.value.append(value)
        else:
            feature[name].int64_list.value.append(int(value))
    return example.SerializeToString(deterministic=True)


def parse(data: bytes) -> dict[str, Any]:
    """Parses the row of a message."""
    row = {}
    for name, feature in Example.FromString(data).features.feature.items():
        row[name] = getattr(feature, feature.WhichOneof("kind")).value[0]
    return row


def frame(data: bytes) -> bytes:
    """Adds the frame of a message."""
    size = struct.pack("<Q", len(data))
    return HEADER.pack(len(data), _masked_crc(size)) + data + FOOTER.pack(_masked_crc(data))


def unframe(framed: bytes) -> bytes | None:
    """Returns the message of one frame; None if it does not match its CRC."""
    data = framed[HEADER.size : -FOOTER.size]
    return data if framed[-FOOTER.size :] == FOOTER.pack(_masked_crc(data)) else None


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file.

    Raises BadInput, with file and record, if the file is truncated or does not match its CRCs.
    """
    with open(path, "rb") as file:
        number = 0
        while header := file.read(HEADER.size):
            data = _body(file, header)
            if data is None:
                raise BadInput(
                    f"record {number} of {path} is corrupt; delete the file and make it again."
                )
            yield parse(data)
            number += 1


@contextlib.contextmanager
def disk_errors(what: str, folder: str | Path):
    """Converts errors of a full or read-only disk, and of a file in place of a folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise BadInput(
            f"{what} could not be written to {folder} ({error.strerror}); "
            "make room there or choose another data folder."
        ) from error


def _body(file: BinaryIO, header: bytes) -> bytes | None:
    if len(header) < HEADER.size:
        return None
    size, crc = HEADER.unpack(header)
    if crc != _masked_crc(header[:8]):
        return None
    return unframe(header + file.read(size + FOOTER.size))


def _masked_crc(data: bytes) -> int:
    """Computes CRC32C, rotated and shifted by a constant as in the TFRecord format."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
