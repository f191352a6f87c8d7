"""Meshes over several slices: data between them, everything else inside."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.sharding import make_mesh, slice_mesh, slices_of


def devices(num_slices, per_slice):
  """Stand-ins: what jax asks of a device to arrange it."""
  return [
    types.SimpleNamespace(
      id=i, slice_index=i // per_slice, process_index=i // 4, platform='cpu', device_kind='cpu'
    )
    for i in range(num_slices * per_slice)
  ]


@pytest.mark.parametrize('sizes', [(2, 8, 1), (2, 4, 2), (4, 2, 2), (16, 1, 1)])
def test_fsdp_and_tensor_stay_inside_a_slice(sizes):
  arranged = slice_mesh(sizes, devices(2, 8))
  assert arranged.shape == sizes
  assert len({device.id for device in arranged.flat}) == 16
  for row in arranged:
    assert len({device.slice_index for device in row.flat}) == 1
  order = [row.flat[0].slice_index for row in arranged]
  assert order == sorted(order)  # a slice's rows are neighbours


@pytest.mark.parametrize(
  'sizes, fitting',
  [
    ((1, 16, 1), r'\[2, 4, 8, 16\]'),
    ((1, 8, 2), r'\[2, 4, 8\]'),
    ((1, 1, 16), 'lower mesh.tensor'),
  ],
)
def test_other_sizes_are_refused_with_those_that_would_do(sizes, fitting):
  with pytest.raises(InputError, match=fitting):
    slice_mesh(sizes, devices(2, 8))


def test_devices_without_slices_are_one():
  assert len(slices_of(jax.devices())) == 1
  np.testing.assert_array_equal(
    np.vectorize(lambda d: d.id)(make_mesh(2, 4, devices=jax.devices()[:8]).devices).ravel(),
    range(8),
  )
