"""The TPU's kernels of the training form, run as ordinary operations, and compiled for TPUs."""

from __future__ import annotations

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.config import Config, MeshConfig, ModelConfig
from ds_jax.config.rules import check_contradictions
from ds_jax.model.attention import training
from ds_jax.model.attention.kernels import tpu_training
from ds_jax.model.attention.partial import MASKED
from ds_jax.model.config import DecoderConfig
from ds_jax.model.decoder import Rows, abstract_decoder
from ds_jax.model.sharded import mesh_logprobs
from ds_jax.plan import topology
from ds_jax.plan.hlo import COLLECTIVES, parse, read_traffic
from ds_jax.plan.parts import described
from ds_jax.plan.products import count_flops
from ds_jax.testing.tolerance import assert_close

LENGTH, WIDTH = 512, 64
# Sums are float32: of a score over a head's width, of weights and of values over positions, three
# times for a gradient. In bfloat16 weights and their gradients are rounded, and so are the results.
NUM_TERMS = {'float32': 3 * (WIDTH + 2 * LENGTH), 'bfloat16': 3}
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)


def _tree(lengths, parents):
  """key_end and positions of a tree's nodes in depth-first order."""
  starts = np.cumsum([0, *lengths])
  ends, depths = list(starts[1:]), [0] * len(lengths)
  for node in reversed(range(len(lengths))):
    if parents[node] >= 0:
      ends[parents[node]] = max(ends[parents[node]], ends[node])
  for node, parent in enumerate(parents):
    depths[node] = 0 if parent < 0 else depths[parent] + lengths[parent]
  key_end = np.repeat(ends, lengths)
  return key_end, np.arange(starts[-1]) - np.repeat(starts[:-1] - depths, lengths)


def _layouts():
  """key_end and positions of rows of 512: one sequence; several and padding; trees; nothing."""
  causal = np.full(LENGTH, LENGTH), np.arange(LENGTH)
  packed = _tree([300, 10, 90], [-1, -1, -1])
  padded = tuple(np.pad(x, (0, LENGTH - 400)) for x in packed)
  tree = _tree([120, 136, 60, 64, 132], [-1, 0, 0, 2, 0])
  return {'causal': causal, 'packed': padded, 'tree': tree, 'nothing': (causal[1] * 0,) * 2}


LAYOUTS = _layouts()


def _rows(*names):
  return [jnp.asarray(np.stack(x), jnp.int32) for x in zip(*map(LAYOUTS.get, names), strict=True)]


def _inputs(rows, heads, *, group=3, dtype='float32'):
  """q, k, v, d_out."""
  shapes = [(group, WIDTH), (WIDTH,), (WIDTH,), (group, WIDTH)]
  keys = jax.random.split(jax.random.key(0), 4)
  draw = lambda key, shape: jax.random.normal(key, (rows, heads, LENGTH, *shape)).astype(dtype)
  return [draw(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def _is_seen(key_end, positions, window):
  index = np.arange(LENGTH)
  seen = (index <= index[:, None]) & (index[:, None] < np.asarray(key_end)[:, None])
  distance = positions[:, :, None] - positions[:, None]
  return jnp.asarray(seen) & (window is None or distance < window)


def _dense(q, k, v, is_seen):
  """The definition: every pair's score, softmax over the keys that a query sees."""
  mask = is_seen[:, None, :, None]
  scores = jnp.einsum('bcqgd,bcsd->bcqgs', q, k) * WIDTH**-0.5
  scores = jnp.where(mask, scores, MASKED)
  weights = jnp.where(mask, jax.nn.softmax(scores), 0.0)
  total = jnp.where(mask, jnp.exp(scores), 0.0).sum(-1)
  normalizer = jnp.where(total > 0, jnp.log(jnp.maximum(total, 1e-30)), 0.0)
  return jnp.einsum('bcqgs,bcsd->bcqgd', weights, v), normalizer


def _by_kernels(q, k, v, d_out, **mask):
  """out, normalizer, and the gradients of q, k and v."""
  out, normalizer = tpu_training.forward(q, k, v, **mask, interpret=True)
  residuals = dict(out=out, normalizer=normalizer, d_out=d_out)
  return out, normalizer, *tpu_training.backward(q, k, v, **mask, **residuals, interpret=True)


@pytest.fixture
def small_blocks(monkeypatch):
  """Blocks of 128 queries and 128 keys, of which a program sums up two in the backward pass."""
  monkeypatch.setattr(tpu_training, 'KEYS', 128)
  monkeypatch.setattr(tpu_training, '_QUERY_BYTES', 128 * 3 * WIDTH * 4)
  monkeypatch.setattr(tpu_training, '_SUM_BYTES', 2 * 2 * 4 * 128 * WIDTH)


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize(
  'names, heads, window',
  [
    (['causal', 'tree'], 2, None),
    (['packed'], 1, None),  # an odd number of programs is made even
    (['tree', 'nothing', 'packed'], 1, 60),
    (['causal'], 1, 129),
  ],
)
def test_attention_and_its_gradients_are_those_of_the_definition(names, heads, window):
  key_end, positions = _rows(*names)
  *qkv, d_out = _inputs(len(names), heads)
  is_seen = _is_seen(key_end, positions, window)
  mask = dict(key_end=key_end) if window is None else dict(key_end=key_end, positions=positions)

  @jax.jit
  def run(*arguments, window=window):  # of layers that differ, it is traced
    return _by_kernels(*arguments, **mask, window=window)

  @jax.jit
  def define(q, k, v, d_out):
    out, pull, normalizer = jax.vjp(lambda *x: _dense(*x, is_seen), q, k, v, has_aux=True)
    return out, normalizer, *pull(d_out)

  found_of_all = run(*qkv, d_out, **({} if window is None else dict(window=jnp.int32(window))))
  for found, wanted in zip(found_of_all, define(*qkv, d_out), strict=True):
    assert found.shape == wanted.shape
    assert_close(found, wanted, num_terms=NUM_TERMS['float32'], scale=1.0)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_attention_and_its_gradients_are_those_of_the_loops(dtype):
  """Blocks as they are, of more keys than queries."""
  key_end, _ = _rows('tree', 'packed')
  key_end = jnp.concatenate([key_end, jnp.where(key_end > 0, key_end + LENGTH, 0)], 1)
  q, k, v, d_out = (jnp.concatenate([x, x[:, :, ::-1]], 2) for x in _inputs(2, 1, dtype=dtype))
  visibility = training.Visibility(key_end, training.find_seen_blocks(key_end))
  out, normalizer = jax.jit(training.loop_forward)(q, k, v, visibility)
  residuals = training.Residuals(q, k, v, visibility, out, normalizer)
  wanted = out, normalizer, *jax.jit(training.loop_backward)(residuals, d_out)
  for found, want in zip(
    jax.jit(_by_kernels)(q, k, v, d_out, key_end=key_end), wanted, strict=True
  ):
    assert found.shape == want.shape and found.dtype == want.dtype
    assert_close(found, want, num_terms=NUM_TERMS[dtype], dtype=dtype, scale=1.0)


def _listed(grid, marks):
  """Pairs of blocks with their bits, of every part of every row."""
  pairs, _ = tpu_training.list_pairs(grid, marks)
  programs = []
  for packed in np.asarray(pairs):
    packed = packed[packed & 15 > 0]
    at = list(zip(packed >> 16, packed % 2**16 >> 4, strict=True))
    assert at == sorted(set(at))
    programs.append(dict(zip(at, packed & 15, strict=True)))
  return [programs[i : i + grid.num_parts] for i in range(0, len(programs), grid.num_parts)]


@pytest.mark.usefixtures('small_blocks')
@pytest.mark.parametrize('window', [None, 100])
@pytest.mark.parametrize('split', ['of_queries', 'of_keys'])
def test_pairs_of_blocks_that_have_nothing_to_attend_are_left_out(window, split):
  key_end, positions = _rows(*LAYOUTS)
  grid = getattr(tpu_training._Grid, split)(jnp.zeros((4, 1, LENGTH, 3, WIDTH)))
  rows = _listed(grid, tpu_training._make_marks(key_end, positions, window))
  blocks = np.asarray(_is_seen(key_end, positions, window)).reshape(4, 4, 128, 4, 128)
  visited = []
  for row, parts in enumerate(rows):
    found = {at: bits & 3 for part in parts for at, bits in part.items() if bits & 3}
    some, every = (np.argwhere(x((1, 3))).tolist() for x in (blocks[row].any, blocks[row].all))
    assert set(found) >= set(map(tuple, some))
    assert {at for at, kind in found.items() if kind == 2} <= set(map(tuple, every))
    # Sums of queries are written, in the backward pass by every part.
    written = [{i for i, _ in part} for part in parts]
    assert set().union(*written) == set(range(4))
    assert split == 'of_queries' or written == [set(range(4))] * 2
    visited.append(len(found))
  if window is None:
    assert visited == [10, 8, 8, 0]  # sequences and trees leave holes
  else:
    assert visited[0] == 7 and visited[3] == 0


@pytest.mark.usefixtures('small_blocks')
def test_what_is_left_out_is_not_read():
  """Keys of the first sequence are NaN for a row of which only the second is compared."""
  key_end = jnp.asarray(_tree([256, 256], [-1, -1])[0], jnp.int32)[None]
  *qkv, d_out = _inputs(1, 2)
  run = jax.jit(functools.partial(_by_kernels, key_end=key_end))
  clean = run(*qkv, d_out)
  poisoned = run(*(x.at[:, :, :256].set(jnp.nan) for x in qkv), d_out)
  for a, b in zip(clean, poisoned, strict=True):
    np.testing.assert_array_equal(a[:, :, 256:], b[:, :, 256:])


@pytest.mark.parametrize(
  'group, width, itemsize, size',
  [(6, 128, 2, 256), (6, 128, 4, 128), (1, 128, 2, 512), (4, 256, 2, 256), (8, 256, 4, 0)]
  + [(2, 96, 2, 0), (4, 16, 4, 0), (3, 64, 2, 512)],
)
def test_blocks_of_queries_fit_and_other_heads_are_left_to_xla(group, width, itemsize, size):
  assert tpu_training.query_block(group, width, itemsize) == size
  q = jax.ShapeDtypeStruct((1, 1, 1024, group, width), {2: jnp.bfloat16, 4: jnp.float32}[itemsize])
  assert ('tpu' in training.find_kernels(q)) == (size > 0)


@pytest.mark.parametrize(
  'choice, kind, is_whole, blocks',
  [
    ('auto', 'TPU v5', True, training.KERNELS),
    ('auto', 'TPU v6 lite', True, training.KERNELS),
    ('auto', 'TPU v5 lite', True, training.GPU_KERNELS),
    ('on', 'TPU v5 lite', True, training.KERNELS),
    ('off', 'TPU v5', True, training.LOOPS),
    ('auto', 'TPU v5', False, training.LOOPS),
  ],
)
def test_where_they_are_used(choice, kind, is_whole, blocks):
  options = dict(heads_are_whole=is_whole, device_kind=kind)
  assert training.choose_block_attention(choice, **options) == blocks


def test_asking_for_kernels_of_split_heads_is_refused():
  config = Config(model=ModelConfig(attention_kernel='on'), mesh=MeshConfig(tensor=2))
  with pytest.raises(
    InputError, match="attention_kernel = 'on' needs whole heads.* mesh.tensor = 2"
  ):
    check_contradictions(config)


def _compile(mesh, run, *arguments):
  """Traced and compiled, the same on every device."""
  whole = jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
  replicated = sharding.replicated(mesh)
  described_ = [jax.ShapeDtypeStruct(*x, sharding=replicated) for x in arguments]
  traced = jax.jit(whole).trace(*described_)
  return traced, traced.lower().compile().as_text()


def _shapes(*, rows=1, heads=2, length=2048, group=6, width=128, dtype='bfloat16'):
  q, k = (rows, heads, length, group, width), (rows, heads, length, width)
  return (q, dtype), (k, dtype), (k, dtype), ((rows, length), 'int32')


@needs_libtpu
def test_it_compiles_for_v5p_and_is_counted_by_what_it_reads():
  mesh = topology.open_place('v5p:2x2x1', MeshConfig(1, -1, 1)).mesh
  run = lambda q, k, v, key_end: tpu_training.forward(q, k, v, key_end=key_end)
  traced, text = _compile(mesh, run, *_shapes())
  # 8 blocks of 256 queries and 4 of 512 keys: 2 x (1 + 2 + 3 + 4) pairs of each head of keys.
  pair = 256 * 512 * 6 * 128
  assert count_flops(traced.jaxpr, {}, platform='tpu') == 2 * 20 * 2 * 2 * pair
  q, keys, numbers = 2 * 2048 * 6 * 128 * 2, 2 * 20 * 512 * 2 * 128 * 2, 2 * 2048 * 6 * 4
  moved = read_traffic(text, {}, 1).bytes
  assert q + keys + q + numbers <= moved < 1.3 * (q + keys + q + numbers) + 4 * q  # and layouts


@needs_libtpu
@pytest.mark.long
@pytest.mark.parametrize('name', ['v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1'])
@pytest.mark.parametrize(
  'shape, window',
  [
    (dict(length=18_432), None),  # the paper's rows
    (dict(length=4096, heads=1, group=4, width=256), 512),  # Gemma 3 1B
    (dict(length=20_480, heads=1, group=8), None),  # the largest blocks and sums
    (dict(length=4096, dtype='float32'), None),
    (dict(length=1024, heads=3, group=3, width=64), None),
  ],
)
def test_it_compiles_for_every_generation(name, shape, window):
  mesh = topology.open_place(name, MeshConfig(1, -1, 1)).mesh
  q, k, v, key_end = _shapes(**shape)

  def run(q, k, v, key_end, d_out):
    mask = dict(key_end=key_end, positions=key_end, window=window)
    out, normalizer = tpu_training.forward(q, k, v, **mask)
    residuals = dict(out=out, normalizer=normalizer, d_out=d_out)
    return tpu_training.backward(q, k, v, **mask, **residuals)

  _, text = _compile(mesh, run, q, k, v, key_end, q)
  assert tpu_training.FORWARD in text and tpu_training.BACKWARD in text


@needs_libtpu
def test_every_device_attends_in_its_own_rows():
  """Of what travels nothing is as long as a row: parameters alone."""
  config = DecoderConfig(
    vocab_size=256,
    num_ids=256,
    num_layers=1,
    width=512,
    mlp_width=256,
    num_heads=4,
    num_kv_heads=2,
    head_width=64,
    compute_dtype='bfloat16',
    remat='full',
    tie_embeddings=False,
  )
  mesh = topology.open_place('v5p:2x2x1', MeshConfig(1, -1, 1)).mesh
  decoder = abstract_decoder(config)
  decoder = described(decoder, sharding.parameter_shardings(decoder, mesh))
  row = jax.ShapeDtypeStruct((4, 1536), jnp.int32, sharding=sharding.batch_sharding(mesh))
  rows = Rows(row, row, row, targets=row)
  loss = lambda decoder, rows: mesh_logprobs(decoder, rows, mesh=mesh)[0].sum()
  text = jax.jit(jax.grad(loss, allow_int=True)).lower(decoder, rows).compile().as_text()
  _, computations = parse(text)
  lines = [line for computation in computations.values() for line in computation.values()]
  kernels = [line for line in lines if 'pallas_call' in line.rest and line.opcode == 'custom-call']
  assert len(kernels) == 3  # forward, again, and backward
  assert all('[1,2,' in line.result or '[3,1,2,' in line.result for line in kernels)
  moved = [line for line in lines if line.opcode.removesuffix('-start') in COLLECTIVES]
  assert moved
  assert not any('1536,64' in line.result or '64,1536' in line.result for line in moved)
