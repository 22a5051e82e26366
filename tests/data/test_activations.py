import numpy as np
import pytest

from ssl_guard.data.activations import with_states
from ssl_guard.data.records import Rows
from ssl_guard.errors import BadInput

LENGTHS = (3, 1, 4)
TRUE = [np.full((n, 2), i, np.float32) + np.arange(n)[:, None] / 8 for i, n in enumerate(LENGTHS)]


@pytest.fixture
def records():
    return rows_of(0)


def rows_of(first_token, second=1):
    return Rows(
        [
            {"id": str(i), "input_ids": first_token + np.arange(n), "second": second}
            for i, n in enumerate(LENGTHS)
        ]
    )


def batches(calls=None):
    """Two batches, longest first and padded with a number that must not be stored."""
    if calls is not None:
        calls.append(1)
    for positions in ([2, 0], [1]):
        padded = np.full((len(positions), 5, 2), 99, np.float32)
        for row, i in zip(padded, positions, strict=True):
            row[: LENGTHS[i]] = TRUE[i]
        yield padded, np.array(positions)


def check(found):
    assert len(found) == 3
    for number, row in enumerate(found.gather([2, 0, 2, 1])):
        i = (2, 0, 2, 1)[number]
        assert row["id"] == str(i)
        np.testing.assert_array_equal(row["states"], TRUE[i])


def test_states_are_stored_once(records, tmp_path):
    calls = []
    for _ in range(2):
        check(with_states(records, batches(calls), tmp_path, width=2, made_from={"layers": 3}))
    assert len(calls) == 1
    with_states(records, batches(calls), tmp_path, width=2, made_from={"layers": 2})
    for others in (rows_of(1), rows_of(0, second=2)):
        with_states(others, batches(calls), tmp_path, width=2, made_from={"layers": 3})
    assert len(calls) == 4


@pytest.mark.parametrize("chosen", [[0, 1], [2, 1, 0], [0, 1, 2, 2]])
def test_some_rows_of_a_view_have_states_of_their_own(records, tmp_path, chosen):
    with_states(records, batches(), tmp_path, width=2, made_from={})
    some = records.subset(chosen)
    own = [(np.stack([TRUE[i]]), np.array([place])) for place, i in enumerate(chosen)]
    found = with_states(some, iter(own), tmp_path, width=2, made_from={})
    for row, i in zip(found, chosen, strict=True):
        assert row["id"] == str(i)
        np.testing.assert_array_equal(row["states"], TRUE[i])


@pytest.mark.parametrize("file", ["states.npy", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_damaged_states_are_computed_again(records, tmp_path, file, harm):
    how = {"width": 2, "made_from": {"layers": 3}}
    with_states(records, batches(), tmp_path, **how)
    (path,) = tmp_path.glob(f"*/{file}")
    content = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(content[:-1] if file == "states.npy" else content[:-9])
    else:
        content[-2 if file == "states.npy" else -9] ^= 1
        path.write_bytes(content)
    calls = []
    check(with_states(records, batches(calls), tmp_path, **how))
    assert len(calls) == 1


def test_a_writer_that_stops_leaves_nothing(records, tmp_path):
    def stopped():
        yield next(batches())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_states(records, stopped(), tmp_path, width=2, made_from={})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(records, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="the activations"):
        with_states(records, batches(), tmp_path / "file", width=2, made_from={})
