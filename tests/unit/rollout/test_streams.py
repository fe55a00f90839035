"""Random numbers with an address."""

import torch

from rlpipe.rollout.streams import keys, uniforms

CPU = torch.device("cpu")


def test_uniforms_differ_in_every_part_of_the_address():
    base = (1, 2, 3, 4)
    addresses = [base, (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5), (2, 1, 3, 4)]
    drawn = [uniforms(keys([address], CPU), position).item() for address in addresses for position in (0, 1)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= u < 1 for u in drawn)


def test_neighbouring_streams_are_not_correlated():
    # Correlation of 10,000 neighbours has standard error 0.01; 4 of them as the limit.
    u = uniforms(keys([(17, 0, i, 0) for i in range(10_001)], CPU), 0)
    assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1].item()) < 0.04


def test_each_stream_can_be_at_a_position_of_its_own():
    key = keys([(1, 0, 0, 0), (1, 0, 0, 1)], CPU)
    mixed = uniforms(key, torch.tensor([3, 8]))
    assert mixed.tolist() == [uniforms(key, 3)[0].item(), uniforms(key, 8)[1].item()]
