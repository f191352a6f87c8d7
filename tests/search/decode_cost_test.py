"""What a token costs in predicted time, written out."""

from __future__ import annotations

import dataclasses

import numpy as np

from ds_jax.search.decode_cost import DecodeCost
from ds_jax.search.policies.fork_law import ratio_interval, unresolved_over_cost

# 100 bytes a row, 2 a position, 4 siblings on a path cache.
COST = DecodeCost(
  row_bytes=100.0, position_bytes=2.0, num_siblings=4, segment_length=10, prompt_length=30.0
)


def test_tokens_read_their_path_one_after_the_other():
  """Token by token: segments of 10 after 30 tokens, of which the last is half full."""
  read = 0.0
  for place in range(40):
    start = place // 10 * 10
    read += 100 + 2 * ((30 + start) / 4 + (place - start + 0.5))
  np.testing.assert_allclose(COST.line_bytes(np.array(30.0), np.array(40.0), 4), read)


def test_a_continuation_over_a_rollout():
  rollout = 40 * (100 + 2 * (30 + 20))  # a path of its own
  # From depth 1: 20 tokens after 50, 4 siblings share 50 + 10 / 2, half a segment is its own.
  continued = 20 * (100 + 2 * (55 / 4 + 5))
  share = COST.share_of_time(np.array([40.0, 20.0]))
  np.testing.assert_allclose(share[1], continued / rollout)
  # Alone in its slot it costs more than its share of the tokens: its path is longer.
  alone = dataclasses.replace(COST, num_siblings=1).share_of_time(np.array([40.0, 20.0]))
  np.testing.assert_allclose(alone, [1, 20 * (100 + 2 * 60) / rollout])
  assert share[1] < 0.5 < alone[1]


def test_where_parameters_are_all_that_is_read_time_is_tokens():
  cost = dataclasses.replace(COST, position_bytes=0.0)
  np.testing.assert_allclose(cost.share_of_time(np.array([40.0, 30, 8])), [1, 0.75, 0.2])


def test_u_over_x_in_time_and_its_interval():
  table = np.array([[100, 50], [20, 5], [4000, 1000]], float)
  in_tokens, in_time = (unresolved_over_cost(*table, cost=cost) for cost in (None, COST))
  np.testing.assert_allclose(in_tokens, [1, 0.5 / 0.5])
  np.testing.assert_allclose(in_time[1], 0.5 / COST.share_of_time(np.array([40.0, 20.0]))[1])

  alike = ratio_interval(np.stack([table] * 9), COST)
  np.testing.assert_allclose(alike.low, alike.ratio)
  np.testing.assert_allclose(alike.high, alike.ratio)
  other = np.array([[100, 50], [20, 15], [4000, 1000]], float)
  mixed = ratio_interval(np.stack([table, other] * 20))
  assert 1 < mixed.low[1] < mixed.ratio[1] == 2 < mixed.high[1] < 3
  # One table tells no spread; a depth without pairs nothing.
  assert np.isnan(ratio_interval(table[None]).low).all()
  empty = ratio_interval(np.stack([table * [1, 0]] * 3))
  assert np.isnan(empty.ratio[1]) and np.isinf([empty.low[1], empty.high[1]]).all()
