"""Temperatures of groups: the two rules in numbers, and updates at temperatures of their own."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from train_cases import CONFIG, arrays_of, random_tree, small_decoder

from ds_jax.checks import InputError
from ds_jax.config import (
  Config,
  EvaluateConfig,
  ExploreConfig,
  SamplingConfig,
  TrainConfig,
  scored_temperature,
  trained_temperature,
)
from ds_jax.config.rules import check_contradictions
from ds_jax.model.decoder import Rows, compute_logits, forward, sequence_logprobs
from ds_jax.run.state import RunState
from ds_jax.sharding import make_mesh
from ds_jax.testing.tolerance import assert_close, decoder_terms, tolerance
from ds_jax.train.advantages import GroupAdvantages
from ds_jax.train.batch import pack, plain_examples, scatter, trained_branches
from ds_jax.train.exploration import Brought, Exploration, Tally, draw, exploration_figures
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.rescore import importance_metrics, rescore
from ds_jax.train.state import init_state
from ds_jax.train.step import make_learner, policy_loss_fn
from ds_jax.train.trees import PACKINGS
from ds_jax.types import Trajectory

STEERED = ExploreConfig('steered', target=0.5, factor=1.1, max_temperature=1.2, decay=0.5)
BANDIT = ExploreConfig('bandit', temperatures=(0.8, 1.2), decay=0.5)
EXACT = tolerance('float64', 16)
NUM_TERMS = decoder_terms(CONFIG, 16, 3) + 8 * 16
NOISE = tolerance('float32', NUM_TERMS)


def groups(temperature, num_with, num_without):
  return [Brought(temperature, True)] * num_with + [Brought(temperature, False)] * num_without


def test_a_steered_temperature_by_hand():
  state = Exploration()
  assert state.temperature(STEERED, 1.0) == 1.0
  # C = 1 of N = 4, below one half: up.
  state = state.add(groups(1.0, 1, 3), STEERED, 1.0)
  assert state.overall == Tally(1.0, 4.0) and state.steered == 1.1
  # C = 0.5 + 3 of N = 2 + 4: 7/12, above: down.
  state = state.add(groups(1.1, 3, 1), STEERED, 1.0)
  assert state.overall == Tally(3.5, 6.0) and state.steered == 1.1 / 1.1
  # C = 1.75 + 1.75 of N = 3 + 4: at the target, it stays.
  at_target = dataclasses.replace(state, overall=Tally(2.0, 4.0)).add(groups(1.0, 2, 2), STEERED, 1)
  assert at_target.steered == state.steered
  # Never beyond the bounds, from which it also starts.
  for _ in range(5):
    state = state.add(groups(1.0, 0, 9), STEERED, 1.0)
  assert state.steered == 1.2
  for _ in range(9):
    state = state.add(groups(1.0, 9, 0), STEERED, 1.0)
  assert state.steered == 0.8
  assert Exploration().temperature(STEERED, 5.0) == 1.2
  assert state.add([], STEERED, 1.0) is state
  assert draw(state, STEERED, start=1.0, seed=0, step=0, problem_id='p', sample=0) == 0.8


def test_the_posterior_of_a_bandit_by_hand():
  """m = (C + 1) / (N + 2); theta ~ Beta(C_a + 2 m, N_a - C_a + 2 (1 - m))."""
  state = Exploration()
  assert state.posterior(0.8) == (1.0, 1.0)
  state = state.add(groups(0.8, 1, 3) + groups(1.2, 3, 1), BANDIT, 1.0)
  assert state.arms == {0.8: Tally(1.0, 4.0), 1.2: Tally(3.0, 4.0)}
  np.testing.assert_allclose(state.posterior(0.8), (2.0, 4.0), rtol=EXACT)
  np.testing.assert_allclose(state.posterior(1.2), (4.0, 2.0), rtol=EXACT)
  # A step without the first one: its counts halve, and so do the second's before its 6 of 6.
  state = state.add(groups(1.2, 6, 0), BANDIT, 1.0)
  assert state.arms == {0.8: Tally(0.5, 2.0), 1.2: Tally(7.5, 8.0)}
  mean = (8 + 1) / (10 + 2)
  np.testing.assert_allclose(state.posterior(0.8), (0.5 + 2 * mean, 1.5 + 2 - 2 * mean), rtol=EXACT)
  np.testing.assert_allclose(state.estimate(0.8), (0.5 + 2 * mean) / 4, rtol=EXACT)
  figures = exploration_figures(groups(0.8, 1, 0) + groups(1.2, 1, 2), state, BANDIT)
  assert figures == pytest.approx(
    {
      'explore/temperature': (0.8 + 3 * 1.2) / 4,
      'explore/contrast_share': 0.5,
      'explore/draw_share/t_0.8': 0.25,
      'explore/draw_share/t_1.2': 0.75,
      'explore/estimate/t_0.8': (0.5 + 2 * mean) / 4,
      'explore/estimate/t_1.2': (7.5 + 2 * mean) / 10,
    }
  )
  assert exploration_figures([], state, BANDIT) == {}


def test_draws_of_a_bandit_follow_from_seed_step_problem_and_sample():
  state = Exploration().add(groups(0.8, 1, 3) + groups(1.2, 3, 1), BANDIT, 1.0)

  def drawn(count=40, seed=0, step=0, sample=0):
    return [
      draw(state, BANDIT, start=1.0, seed=seed, step=step, problem_id=f'p{i}', sample=sample)
      for i in range(count)
    ]

  first = drawn()
  assert first[:8] == [1.2, 1.2, 1.2, 0.8, 1.2, 1.2, 1.2, 1.2]
  assert first == drawn()
  assert all(first != other for other in (drawn(seed=1), drawn(step=1), drawn(sample=6)))
  # P(theta_1.2 > theta_0.8) of Beta(4, 2) against Beta(2, 4), by sums over a grid.
  x = (np.arange(4000) + 0.5) / 4000
  low, high = x * (1 - x) ** 3 * 20, x**3 * (1 - x) * 20
  expected = float((high / 4000 * np.cumsum(low / 4000)).sum())
  share = np.mean(np.array(drawn(2000)) == 1.2)
  assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 2000)


def test_a_state_comes_back_from_a_checkpoint_and_older_ones_have_none():
  state = Exploration().add(groups(0.8, 1, 3) + groups(1.2, 3, 1), BANDIT, 1.0)
  steered = Exploration().add(groups(1.0, 1, 3), STEERED, 1.0)
  for exploration in (state, steered, Exploration()):
    host = dataclasses.replace(RunState.new(2), exploration=exploration)
    assert RunState.from_json(host.to_json()).exploration == exploration
  older = RunState.new(2).to_json()
  del older['exploration']
  assert RunState.from_json(older).exploration == Exploration()


@pytest.mark.parametrize(
  'sections, words',
  [
    (
      dict(explore=BANDIT, sampling=SamplingConfig(0.0)),
      'sampling.temperature = 0 samples greedily',
    ),
    (dict(explore=BANDIT, train=TrainConfig('imitation')), 'objective = imitation samples nothing'),
    (
      dict(explore=dataclasses.replace(STEERED, min_temperature=1.3)),
      'min_temperature = 1.3 is above explore.max_temperature = 1.2',
    ),
    (
      dict(explore=dataclasses.replace(BANDIT, temperatures=(1.0, 1.2, 1.0))),
      'explore.temperatures = .* twice',
    ),
    (dict(evaluate=EvaluateConfig(further_temperatures=(1.0, 1.0))), 'further_temperatures = '),
    (
      dict(train=TrainConfig(trained_policy='plain'), sampling=SamplingConfig(1.2)),
      'train.importance_cap = 0 leaves out',
    ),
    (dict(train=TrainConfig(trained_policy='plain'), explore=BANDIT), 'set train.importance_cap=2'),
  ],
)
def test_contradictions_are_refused_by_name(sections, words):
  with pytest.raises(InputError, match=words):
    check_contradictions(Config(**sections))


def test_the_temperature_that_is_trained():
  check_contradictions(Config(train=TrainConfig(trained_policy='plain')))  # it is the same policy
  sampling, plain = SamplingConfig(1.2), TrainConfig(trained_policy='plain', importance_cap=2.0)
  for config, scored, trained in (
    (Config(), None, 1.0),
    (Config(sampling=SamplingConfig(0.0)), None, 1.0),
    (Config(sampling=sampling), None, 1.2),
    (Config(sampling=sampling, explore=BANDIT), 1.2, 1.2),
    (Config(sampling=sampling, explore=BANDIT, train=plain), None, 1.0),
    (Config(sampling=sampling, train=plain), None, 1.0),
  ):
    check_contradictions(config)
    assert (scored_temperature(config), trained_temperature(config)) == (scored, trained)


TRAIN = TrainConfig(
  learning_rate=1e-2,
  warmup_steps=5,
  weight_decay=0.0,
  clip_low=0.2,
  clip_high=0.28,
  entropy_coefficient=0.01,
  kl_coefficient=0.1,
)


@functools.cache
def learner_on(shape, temperature=1.0, config=None):
  config = config or TRAIN
  mesh = make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))])
  return make_learner(
    make_optimizer(config),
    mesh,
    micro_rows=8,
    loss_fn=policy_loss_fn(config),
    temperature=temperature,
  )


def minibatch(temperatures):
  """A tree for each temperature, every end of it trained."""
  rng, trees = np.random.default_rng(0), []
  for i, temperature in enumerate(temperatures):
    tree = []
    for t in random_tree(rng, group=i):
      tree.append(dataclasses.replace(t, temperature=temperature))
    advantages = tuple(rng.normal(size=len(t.tokens)).astype(np.float32) for t in tree)
    trees.append((tree, GroupAdvantages(advantages, np.ones(len(tree), bool))))
  return trees


def sampled_by(decoder, groups, temperatures):
  """The same trees with the log-probs that a sampler at each one's temperature would have kept."""
  fresh = []
  for (tree, advantages), temperature in zip(groups, temperatures, strict=True):
    learner, ends = learner_on((1, 1, 1), temperature), []
    batch, origin = pack(plain_examples([(t.prompt_tokens, t.tokens) for t in tree]), 24)
    lengths = [len(t.tokens) for t in tree]
    logprobs = scatter(learner.score(decoder, batch)[0], origin, lengths)
    for t, values in zip(tree, logprobs, strict=True):
      ends.append(dataclasses.replace(t, behavior_logprobs=values))
    # A shared node keeps the numbers of one of its ends, as in a search.
    fresh.append((_shared(ends), advantages))
  return fresh


def _shared(ends):
  """Ends whose common nodes have the log-probs of the first of them, to the last bit."""
  known, same = {}, []
  for t in ends:
    parts, start = [], 0
    for node, length in zip(t.node_ids.tolist(), t.node_lengths.tolist(), strict=True):
      parts.append(known.setdefault(node, t.behavior_logprobs[start : start + length]))
      start += length
    same.append(dataclasses.replace(t, behavior_logprobs=np.concatenate(parts)))
  return same


TEMPERATURES = (0.7, 1.0, 1.3, 1.6)


@pytest.mark.parametrize('shape', [(1, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize('packing', ['tree', 'flat'])
def test_fresh_samples_have_ratio_one_at_their_own_temperatures(shape, packing):
  """Groups of four temperatures, in rows that they share; one of them is the learner's constant."""
  decoder = small_decoder()
  fresh = sampled_by(decoder, minibatch(TEMPERATURES), TEMPERATURES)
  batch = PACKINGS[packing](trained_branches(fresh, 'token_mean', 1.0), 48)
  assert {np.float32(t) for t in TEMPERATURES} == set(np.unique(batch.temperature))
  learner = learner_on(shape)
  state = init_state(decoder, make_optimizer(TRAIN), learner.mesh)
  logprobs, entropies = learner.score(state.params, batch)
  assert np.abs(logprobs - batch.behavior_logprobs)[batch.token_mask].max() < 5 * NOISE
  # Entropy grows with the temperature, so it is of the tempered policy.
  means = []
  for t in TEMPERATURES:
    means.append(entropies[batch.token_mask & (batch.temperature == np.float32(t))].mean())
  assert means == sorted(means)
  _, metrics = learner.update(state, batch)
  assert metrics['train/ratio_max_log'] < 5 * NOISE and metrics['train/clip_fraction'] == 0
  # At one temperature for all they do not.
  _, metrics = learner.update(
    init_state(decoder, make_optimizer(TRAIN), learner.mesh), batch._replace(temperature=None)
  )
  assert metrics['train/ratio_max_log'] > 0.1


def test_trees_and_flat_rows_of_several_temperatures_have_one_gradient_on_every_mesh():
  decoder = small_decoder()
  found = minibatch(TEMPERATURES)
  gradients = []
  for shape, packing in (((1, 1, 1), 'flat'), ((1, 1, 1), 'tree'), ((2, 2, 1), 'tree')):
    learner = learner_on(shape)
    batch = PACKINGS[packing](trained_branches(found, 'token_mean', 1.0), 48)
    batch = rescore(learner, decoder, batch, reference=decoder, config=TRAIN)
    total = learner.start(decoder)
    for rows in learner.passes(batch):
      total = learner.accumulate(decoder, total, rows)
    gradients.append(jax.device_get(total[0]))
  for other in gradients[1:]:
    assert_close(other, gradients[0], num_terms=NUM_TERMS)


def test_padding_of_chunked_logits_has_a_finite_gradient(monkeypatch):
  """Positions go through the head a few at a time; the last chunk holds padding."""
  decoder = small_decoder()
  batch = PACKINGS['tree'](trained_branches(minibatch((1.3,)), 'token_mean', 1.0), 24)

  def gradient():
    rows = Rows(
      batch.tokens,
      batch.positions,
      batch.key_end,
      targets=batch.tokens,
      predecessor=batch.predecessor,
      temperature=batch.temperature,
    )
    return jax.grad(lambda p: (sequence_logprobs(p, rows)[0] * batch.weight).sum())(decoder)

  whole = gradient()
  chunk = 7  # does not divide 24
  size = len(batch.tokens) * decoder.config.vocab_size * chunk
  monkeypatch.setattr('ds_jax.model.decoder.MAX_LOGITS', size)
  assert_close(gradient(), whole, num_terms=NUM_TERMS)


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def reference_update(logits, tokens, advantages, *, behavior, temperature):
  """Loss of one path and its gradient by the logits, in plain numpy.

  loss = -mean_t min(r A, clip(r) A) with r = pi_T / mu, and where the first is the smaller
  d loss / d z_t = -r A / n (onehot - pi_T) / T.
  """
  p = softmax(logits / temperature)
  ratio = p[np.arange(len(tokens)), tokens] / behavior
  clipped = np.clip(ratio, 1 - CLIPPED.clip_low, 1 + CLIPPED.clip_high)
  values = np.minimum(ratio * advantages, clipped * advantages)
  moves = ratio * advantages <= clipped * advantages
  onehot = np.eye(logits.shape[-1])[tokens]
  by_ratio = np.where(moves, ratio * advantages, 0.0) / len(tokens)
  return -values.mean(), -by_ratio[:, None] * (onehot - p) / temperature, moves


CLIPPED = dataclasses.replace(TRAIN, entropy_coefficient=0.0, kl_coefficient=0.0)
PLAIN = dataclasses.replace(CLIPPED, trained_policy='plain', importance_cap=0.8)


@pytest.mark.parametrize('config', [CLIPPED, PLAIN])
def test_an_update_at_temperature_1_3_is_that_of_plain_numpy(config):
  """Trained is pi_1.3, or pi_1 with the weights min(pi_1 / mu_1.3, 0.8)."""
  decoder, rng = small_decoder(), np.random.default_rng(3)
  prompt, tokens = rng.integers(1, 57, 3), rng.integers(1, 57, 12)
  path = np.concatenate([prompt, tokens]).astype(np.int32)[None]
  positions = np.arange(15)[None]

  def logits_of(params):
    hidden = forward(params, Rows(path, positions, np.full((1, 15), 15)))
    return compute_logits(params, hidden)[0, 2:-1]

  logits, pull = jax.vjp(logits_of, decoder)
  z = np.asarray(logits, np.float64)
  advantages = rng.normal(size=12).astype(np.float32)
  place = np.arange(12), tokens
  mu = softmax(z / 1.3)[place] * np.exp(0.3 * rng.normal(size=12))  # of a policy a few steps older
  if config is PLAIN:
    now = softmax(z)[place]
    weights = np.minimum(now / mu, 0.8)
    weighted = advantages * weights
    loss, by_logits, _ = reference_update(z, tokens, weighted, behavior=now, temperature=1.0)
    assert 0 < (weights == 0.8).sum() < 12
  else:
    loss, by_logits, moves = reference_update(z, tokens, advantages, behavior=mu, temperature=1.3)
    assert 0 < moves.sum() < 12

  end = Trajectory(
    'p',
    0,
    prompt_tokens=prompt.astype(np.int32),
    tokens=tokens.astype(np.int32),
    behavior_logprobs=np.log(mu).astype(np.float32),
    node_ids=np.array([0, 1], np.int32),
    node_lengths=np.array([0, 12], np.int32),
    node_values=np.zeros(2, np.float32),
    node_outcomes=np.zeros(2, np.float32),
    reward=1.0,
    is_correct=True,
    is_collected=True,
    temperature=1.3,
  )
  group = [([end], GroupAdvantages((advantages,), np.ones(1, bool)))]
  run = Config(train=config, explore=BANDIT)
  learner = learner_on((1, 1, 1), trained_temperature(run), config)
  packed = PACKINGS['tree'](trained_branches(group, 'token_mean', scored_temperature(run)), 24)
  assert (packed.temperature is None) == (config is PLAIN)
  batch = rescore(learner, decoder, packed, reference=None, config=config)
  total = learner.start(decoder)
  for rows in learner.passes(batch):
    total = learner.accumulate(decoder, total, rows)
  np.testing.assert_allclose(float(total[1].loss), loss, rtol=0, atol=5 * NOISE)
  assert_close(total[0], pull(by_logits.astype(np.float32))[0], num_terms=NUM_TERMS)
  if config is PLAIN:
    figures = importance_metrics([packed], [batch], config)
    np.testing.assert_allclose(figures['train/importance_mean'], weights.mean(), atol=5 * NOISE)


def test_off_there_is_no_temperature_in_a_batch():
  found = minibatch((1.3, None))
  for packing in PACKINGS.values():
    off = packing(trained_branches(found, 'token_mean'), 48)
    assert off.temperature is None and len(jax.tree.leaves(off)) == 12
    assert len(jax.tree.leaves(list(learner_on((1, 1, 1)).passes(off))[0])) == 12
    on = packing(trained_branches(found, 'token_mean', 1.1), 48)
    assert {np.float32(1.1), np.float32(1.3)} <= set(np.unique(on.temperature))
    same = on._replace(temperature=None)
    jax.tree.map(np.testing.assert_array_equal, arrays_of(same), arrays_of(off))
