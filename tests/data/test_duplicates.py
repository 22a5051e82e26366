"""Prompts looked up among known ones: what all pairs give, whatever is kept of them on disk."""

import random
import tracemalloc
import zlib

import numpy as np
import pytest

from ssl_guard.data import duplicates
from ssl_guard.data.duplicates import Known, Shingles
from ssl_guard.errors import BadInput

WORDS = [a + b for a in "bdfgklmnprst" for b in ("a", "en", "ir", "o", "ul")]


def edited(seed, count=150):
    """Prompts, and as many others of which each differs from one of them in 0 to 9 words."""
    rng = random.Random(seed)
    prompts, others = [], []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(12, 40))
        prompts.append(" ".join(words))
        for _ in range(rng.randint(0, 9)):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        others.append(" ".join(words).upper() + "!")
    return prompts, others


def runs(prompt):
    words = prompt.lower().strip("!").split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def jaccard(a, b):
    return len(runs(a) & runs(b)) / len(runs(a) | runs(b))


def test_near_agrees_with_all_pairs(monkeypatch):
    monkeypatch.setattr(duplicates, "CHUNK", 64)
    prompts, others = edited(0)
    near = Known(Shingles.of(prompts)).near(Shingles.of(others))
    best = np.array([max(jaccard(other, prompt) for prompt in prompts) for other in others])
    assert near.dtype == bool and 20 < near.sum() < 130
    assert not near[best < 0.5].any()
    assert near[best >= 0.7].all()  # 0.5 to 0.7: a pair may be missed
    assert near[best >= 0.5].mean() > 0.9


def test_near_and_groups_say_the_same_of_pairs():
    prompts, others = edited(1, 12)
    known = Known(Shingles.of(prompts))
    for other, near in zip(others, known.near(Shingles.of(others)), strict=True):
        groups = [duplicates.group_numbers([other, prompt]) for prompt in prompts]
        assert near == any(a == b for a, b in groups)


def test_short_prompts_and_none():
    known = Known(Shingles.of(["Bake!", "tea", "✓"]))
    assert known.near(Shingles.of(["bake", "tea cake", " ✓", "☂"])).tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert known.near(Shingles.of([])).tolist() == []
    assert Known(Shingles.of([])).near(Shingles.of(["tea"])).tolist() == [False]


def test_shingles_on_disk_hold_hashes_alone(tmp_path):
    prompts, others = edited(2, 20)
    shingles = Shingles.of(prompts[:5]) + Shingles.of(prompts[5:])
    shingles.save(tmp_path / "read.npz")
    read = Shingles.load(tmp_path / "read.npz")
    whole = Shingles.of(prompts)
    assert len(read) == 20 and [read[i] for i in range(20)] == [whole[i] for i in range(20)]
    assert read[3] == {zlib.crc32(" ".join(run).encode()) for run in runs(prompts[3])}
    near = Known(read).near(Shingles.of(others))
    assert near.tolist() == Known(whole).near(Shingles.of(others)).tolist() and near.any()
    content = (tmp_path / "read.npz").read_bytes()
    assert not any(
        word.encode() in content for word in set(" ".join(prompts).split()) if len(word) > 2
    )


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "starts"])
def test_damaged_shingles(tmp_path, damage):
    path = tmp_path / "read.npz"
    Shingles.of(["one two three four", "five"]).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        np.savez(path, hashes=np.zeros(3, np.uint32))
    else:
        np.savez(path, hashes=np.zeros(3, np.uint32), starts=np.array([0, 2]))
    with pytest.raises(BadInput, match="read.npz is damaged: make its model again"):
        Shingles.load(path)


def test_groups_keep_little_of_the_prompts():
    """Less than the prompts themselves, which come from a generator here."""

    def prompts():
        rng = random.Random(0)
        for _ in range(400):
            yield " ".join(rng.choices(WORDS, k=60))

    size = sum(map(len, prompts()))
    tracemalloc.start()
    assert len(duplicates.near_duplicate_groups(prompts())) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * size
