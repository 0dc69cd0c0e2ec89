"""Which faces make up a batch: shared out over processes, begun anywhere, another order each epoch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipnet.data.dataset import EpochBatches


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 60), st.integers(0, 2**31), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_processes_share_out_each_batch_and_no_face_comes_twice(world_size, share, extra, seed, epoch):
    size = world_size * share
    count = size + extra
    ranks = [EpochBatches(count, size, seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    one = EpochBatches(count, size, seed=seed)
    for batches in (one, *ranks):
        batches.start(epoch)
    whole = list(one)
    assert len(whole) == len(one) == count // size
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert [len(part) for part in parts] == [share] * world_size
        assert sorted(key for part in parts for key in part) == sorted(batch)
    seen = [index for batch in whole for _, index in batch]
    assert len(set(seen)) == len(seen) == count // size * size
    assert set(seen) <= set(range(count))
    assert {e for batch in whole for e, _ in batch} == {epoch}
    middle = len(whole) // 2
    one.start(epoch, middle)
    assert list(one) == whole[middle:]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        batches = EpochBatches(100, 10, seed=seed)
        batches.start(epoch)
        orders.append(tuple(index for batch in batches for _, index in batch))
    assert len(set(orders)) == 3
    with pytest.raises(ValueError, match=r"4 faces are fewer than one batch of 8; lower fit\.batch_size"):
        EpochBatches(4, 8, seed=0)
