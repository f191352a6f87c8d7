"""The bound on rounding errors holds for sums in any order, and is not far above them."""

from __future__ import annotations

import numpy as np
import pytest

from ds_jax.testing.tolerance import assert_close, tolerance


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
@pytest.mark.parametrize('num_terms', [3, 30, 1000])
def test_sums_in_other_orders_stay_within_it(num_terms, dtype):
  """10,000 sums of random signs, one term after the other, forward and backward."""
  terms = np.random.default_rng(0).normal(size=(10_000, num_terms)).astype(dtype)
  forward, backward = (np.cumsum(x, axis=1, dtype=dtype) for x in (terms, terms[:, ::-1]))
  scale = np.abs(np.stack([forward, backward]).astype(float)).max((0, 2))  # of the partial sums
  difference = np.abs(forward[:, -1].astype(float) - backward[:, -1])
  used = (difference / scale).max() / tolerance(dtype, num_terms)
  assert 0.1 < used <= 1


def test_an_error_beyond_rounding_is_seen():
  expected = {'a': np.ones(4, np.float32), 'b': np.full(2, 8.0, np.float32)}
  assert_close(expected, expected, num_terms=1)
  off = {'a': expected['a'] + np.float32(1e-4), 'b': expected['b']}
  assert_close(off, expected, num_terms=10_000)
  with pytest.raises(AssertionError, match='Mismatched elements: 4 / 4'):
    assert_close(off, expected, num_terms=100)
  with pytest.raises(ValueError):
    assert_close({'a': expected['a']}, expected, num_terms=100)
