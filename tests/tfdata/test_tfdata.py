"""tf.data and TFDS read the shards that ssl_guard writes without tensorflow.

    make tfdata

Plain imports on purpose: without tensorflow this fails instead of being skipped.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from ssl_guard.data.shards import write_shards

# Lengths 0 and 300 need one and two bytes for a varint; ids above 127 are not valid ASCII bytes.
ROWS = [
    {
        "id": f"row é {i}",
        "input_ids": np.arange(length, dtype=np.int32) * 70_000,
        "second": length // 2,
        "cut": i,
        "label": i % 3 - 1,
        "index": i // 2,
        "copy": i % 2,
    }
    for i, length in enumerate([3, 0, 300, 7, 1, 12, 4])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "unlabelled-tfidf"
    write_shards(folder, "unlabelled-tfidf", iter(ROWS), num_shards=3, made_from={})
    return folder


def assert_same(found, rows):
    assert len(found) == len(rows)
    for got, row in zip(found, rows, strict=True):
        assert got["id"].decode() == row["id"]
        np.testing.assert_array_equal(got["input_ids"], row["input_ids"])
        for name in ("second", "cut", "label", "index", "copy"):
            assert got[name] == row[name]


def test_tf_data_reads_the_shards(folder):
    spec = {
        "id": tf.io.FixedLenFeature([], tf.string),
        "input_ids": tf.io.FixedLenFeature([], tf.string),
        **{
            name: tf.io.FixedLenFeature([], tf.int64)
            for name in ("second", "cut", "label", "index", "copy")
        },
    }

    def parse(record):
        row = tf.io.parse_single_example(record, spec)
        return row | {"input_ids": tf.io.decode_raw(row["input_ids"], tf.int32)}

    files = [str(folder / f"unlabelled-tfidf.tfrecord-{i:05d}-of-00003") for i in range(3)]
    # Record i is in shard i % 3, so reading the shards in turn restores the order.
    dataset = tf.data.Dataset.from_tensor_slices(files).interleave(
        lambda file: tf.data.TFRecordDataset(file).map(parse), cycle_length=3, block_length=1
    )
    assert_same(list(dataset.as_numpy_iterator()), ROWS)


def test_tfds_reads_the_folder(folder):
    builder = tfds.builder_from_directory(folder)
    assert builder.info.splits["unlabelled-tfidf"].num_examples == len(ROWS)
    rows = list(builder.as_dataset(split="unlabelled-tfidf").as_numpy_iterator())
    assert_same(sorted(rows, key=lambda row: row["cut"]), ROWS)
    half = builder.as_dataset(split="unlabelled-tfidf[:3]")
    assert_same(list(half.as_numpy_iterator()), ROWS[0::3])


def test_tensorflow_notices_a_corrupt_record(folder, tmp_path):
    data = bytearray((folder / "unlabelled-tfidf.tfrecord-00000-of-00003").read_bytes())
    data[40] ^= 1
    (tmp_path / "shard").write_bytes(data)
    with pytest.raises(tf.errors.DataLossError):
        list(tf.data.TFRecordDataset(str(tmp_path / "shard")))
