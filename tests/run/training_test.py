"""The main job on a tiny task: it runs to its end, repeats bit by bit, stops and goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from pages import undocumented
from profiles import PHASES, files, spans_of

from ds_jax.checks import InputError
from ds_jax.report.metrics import read_metrics
from ds_jax.run import training as training_lib
from ds_jax.run.batches import next_batch
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.growing import Journal
from ds_jax.run.state import RunState
from ds_jax.run.stopping import Stopped
from ds_jax.run.training import Training, train
from ds_jax.run.warmstart import warmstart
from ds_jax.run.workdir import Workdir, lock
from ds_jax.testing import tiny_run
from ds_jax.testing.notes import Notes
from ds_jax.train.prefixes import Prefixes
from ds_jax.train.trees import PACKINGS


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  """A workdir with data and a warm-started decoder; tests copy it."""
  return tiny_run.warmstart(tmp_path_factory.mktemp('warm') / 'run', tiny_run.config())


@pytest.fixture(scope='module')
def done(warm, tmp_path_factory):
  """An uninterrupted run."""
  workdir = tiny_run.copy(warm, tmp_path_factory.mktemp('done') / 'run')
  return workdir, tiny_run.train(workdir, tiny_run.config())


def test_a_run_ends_with_metrics_report_and_checkpoint(done):
  workdir, summary = done
  assert summary['status'] == 'done' and summary['steps'] == 6 and summary['rounds'] == 2
  rows = tiny_run.metrics(workdir)
  assert [r['kind'] for r in rows] == (
    ['evaluate', 'filter'] + ['train'] * 3 + ['filter'] + ['train'] * 3 + ['evaluate']
  )
  assert [r['filter/num_problems'] for r in rows if r['kind'] == 'filter'] == [24, 24]
  train = [r for r in rows if r['kind'] == 'train']
  assert [r['step'] for r in train] == [1, 2, 3, 4, 5, 6]
  assert all(r['train/ratio_first'] < 1.001 for r in train)
  assert {f.name for f in workdir.root.iterdir()} >= {
    'metrics.jsonl',
    'report.html',
    'report.png',
    'replay.jsonl',
    'summary.json',
    'config.json',
  }
  assert not list((workdir.root / 'journal').iterdir())
  assert Checkpointer(workdir.checkpoints, 2).latest() is not None


def test_the_metrics_are_documented(done, root):
  assert not undocumented(read_metrics(done[0].metrics), root)


def test_the_same_seed_gives_the_same_bits(done, warm, tmp_path):
  workdir, _ = done
  again = tiny_run.copy(warm, tmp_path / 'run')
  tiny_run.train(again, tiny_run.config())
  tiny_run.assert_same_run(again, workdir, tiny_run.config())


def test_a_run_that_is_stopped_again_and_again_ends_in_the_same_bits(done, warm, tmp_path):
  workdir, _ = done
  stopped = tiny_run.copy(warm, tmp_path / 'run')
  log = dict(profile_steps=(2, 4), writers=('jsonl', 'tensorboard'))
  num_stops = 0
  for polls in itertools.chain([3, 9, 12, 7, 15], itertools.repeat(60)):
    left = itertools.chain(itertools.repeat(False, polls), itertools.repeat(True))
    try:
      cfg = tiny_run.config(log=log)
      tiny_run.train(stopped, cfg, should_stop=lambda left=left: next(left))
      break
    except Stopped:
      num_stops += 1
    if num_stops == 1:  # as a run of before, which keeps its model's files from the next start on
      shutil.rmtree(stopped.model_files)
    if num_stops == 3:  # another machine, without the model
      stopped.warmstart.rename(tmp_path / 'model')
      stopped = Workdir(stopped.root.rename(tmp_path / 'moved'))
  assert num_stops >= 4
  tiny_run.assert_same_run(stopped, workdir, tiny_run.config())
  assert not workdir.profile.exists()
  assert len(list((stopped.root / 'tensorboard').iterdir())) == 1  # the last start's, whole
  spans = [span for path in files(stopped) for span in spans_of(path)]
  assert {step for name, step in spans if name == 'train'} == {2, 3, 4}
  assert {name for name, _ in spans} == {'train', *PHASES}


def test_finished_trees_of_a_stopped_step_are_not_grown_again(warm, tmp_path, monkeypatch):
  workdir, cfg = tiny_run.copy(warm, tmp_path / 'run'), tiny_run.config()
  first_tree_is_kept = lambda: any(
    path.stat().st_size for path in (workdir.root / 'journal').glob('filter_0*')
  )
  with pytest.raises(Stopped):
    tiny_run.train(workdir, cfg, should_stop=first_tree_is_kept)
  paths = list((workdir.root / 'journal').iterdir())
  kept = {(path.name, t.problem_id, t.sample) for path in paths for t in Journal(path).read()}
  assert kept
  grown, original = set(), Journal.append
  monkeypatch.setattr(
    Journal,
    'append',
    lambda self, tree: (
      grown.add((self.path.name, tree.problem_id, tree.sample)),
      original(self, tree),
    ),
  )
  with tiny_run.opened(tiny_run.session(workdir, cfg)) as training:
    training.run()
  assert {name for name, *_ in kept} <= {name for name, *_ in grown}  # the step was gone on with
  assert not kept & grown


def test_a_state_knows_the_journals_that_it_covers():
  state = RunState(round_index=1, step=3, evaluations={'before': {}})
  works = (
    'evaluate_before',
    'evaluate_after',
    'evaluate',
    'filter_0',
    'filter_1',
    'filter_2',
    'step_000002',
    'step_000002_1',
    'step_000003',
    'search',
  )
  covered = lambda state: [work for work in works if state.covers(work)]
  assert covered(state) == ['evaluate_before', 'filter_0', 'step_000002', 'step_000002_1']
  state.hard_ids = ('a',)
  assert 'filter_1' in covered(state) and 'filter_2' not in covered(state)


def test_a_state_takes_up_a_round_again_or_goes_on_with_the_next():
  def ended(**fields):
    return RunState(
      round_index=1,
      step=3,
      hard_before=('a',),
      batches_before=5,
      evaluations={'after': {}},
      **fields,
    )

  state = ended()
  assert not state.follow((3,), (3,)) and state == ended()  # nothing changes
  assert not state.follow((3, 2), (3,))
  assert state == dataclasses.replace(ended(), evaluations={'after_000003': {}})
  longer = ended()
  assert longer.follow((4, 2), (3,))
  assert (longer.round_index, longer.hard_ids, longer.batches) == (0, ('a',), 5)
  assert longer.steps_done((4, 2)) == (3,) and not longer.covers('evaluate_after')
  # A kill came before the first checkpoint by the longer plan: it is the workdir's by now.
  again = ended()
  assert again.follow((4, 2), (4, 2)) and again == longer
  older = dataclasses.replace(ended(), batches_before=None)
  assert older.follow((4,), (3,)) and older.batches == 3
  under_way = RunState(round_index=1, step=4, hard_ids=('b',))
  assert not under_way.follow((3, 1), (3, 5))  # it may end sooner, too
  for plan in ((3,), (4, 2), (2, 2)):
    with pytest.raises(InputError, match='has done, 3,1;'):
      under_way.follow(plan, (3, 5))
  none_hard = RunState(round_index=1, step=3, hard_ids=(), evaluations={'after': {}})
  assert not none_hard.follow((3, 9), (3, 1)) and 'after' in none_hard.evaluations
  works = ('filter_0', 'filter_1', 'step_000003', 'step_000003_1', 'step_000004', 'evaluate_after')
  assert [work for work in works if longer.is_next(work)] == [
    'filter_0',
    'step_000003',
    'step_000003_1',
  ]


def test_a_part_of_the_batch_is_rehearsed_by_direct_rollouts(warm, tmp_path):
  cfg = tiny_run.config(curriculum=dict(rehearsal_share=0.5))
  session = tiny_run.session(tiny_run.copy(warm, tmp_path / 'run'), cfg)
  with tiny_run.opened(session) as training:
    everything = sorted(training.train_prompts)
    training.host.hard_ids = tuple(everything[:10])
    hard, rehearsed = next_batch(cfg, training.train_prompts, training.host)
    assert len(hard) == len(rehearsed) == 3
    assert set(hard) <= set(everything[:10]) and set(rehearsed) <= set(everything[10:])
    groups, figures, after = training.sampler.sample(training.host)
    assert [group[0].problem_id for group in groups] == hard + rehearsed
    assert all(len(group) == cfg.search.num_trajectories for group in groups[3:])
    assert all(len(t.node_ids) == 2 for group in groups[3:] for t in group)
    assert (training.host.batches, after.batches) == (0, 1)
    assert figures['search/trees'] == 3 and figures['search/rehearsed_share'] == 0.5
    training.host.hard_ids = tuple(everything)  # nothing is left to rehearse
    hard, rehearsed = next_batch(cfg, training.train_prompts, training.host)
    assert len(hard) == 6 and not rehearsed


def test_gradients_that_stay_broken_stop_the_run_and_lose_nothing(warm, tmp_path, monkeypatch):
  workdir, cfg = tiny_run.copy(warm, tmp_path / 'run'), tiny_run.config(train=dict(max_skipped=3))
  (workdir.root / 'config.json').unlink()
  pack, broken = PACKINGS['tree'], []

  def pack_nan(*arguments, **options):
    batch = pack(*arguments, **options)
    if len(batch.tokens) and len(broken) < 5:
      broken.append(len(batch.tokens))
      batch = batch._replace(positive=np.full_like(batch.positive, np.nan))
    return batch

  monkeypatch.setitem(PACKINGS, 'tree', pack_nan)
  start = load(warm)
  with pytest.raises(InputError, match=r'The last [34] gradients were not finite.*step . is saved'):
    tiny_run.train(workdir, cfg)
  rows = [r for r in tiny_run.metrics(workdir) if r['kind'] == 'train']
  assert rows and all(r['train/skipped'] > 0 for r in rows)
  for before, now in zip(start, tiny_run.final_arrays(workdir, cfg), strict=True):
    np.testing.assert_array_equal(before, now)  # nothing was applied
  broken.extend([0] * 5)  # whatever it was is gone: the same command goes on
  assert tiny_run.train(workdir, cfg)['steps'] == 6
  rows = [r for r in tiny_run.metrics(workdir) if r['kind'] == 'train']
  assert [r['step'] for r in rows] == [1, 2, 3, 4, 5, 6] and rows[-1]['train/skipped'] < 1


def load(workdir: Workdir):
  """Every array of a state that has not been trained."""
  return tiny_run.final_arrays(workdir, tiny_run.config())


RESCORED = dict(kl_coefficient=0.05, entropy_coefficient=0.01, importance_cap=1.5)


def test_a_run_is_evaluated_on_its_way_and_its_best_kept(warm, tmp_path):
  cfg = tiny_run.config(evaluate=dict(every_steps=2), checkpoint=dict(keep=1, keep_best=1))
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  (workdir.root / 'config.json').unlink()
  tiny_run.train(workdir, cfg)
  found = {
    r['when']: r['evaluate/pass_at_1'] for r in tiny_run.metrics(workdir) if r['kind'] == 'evaluate'
  }
  assert list(found) == ['before', 'step_000002', 'step_000004', 'after']
  checkpoints = Checkpointer(workdir.checkpoints, keep=None)
  kept = sorted(int(p.name) for p in workdir.checkpoints.iterdir())
  evaluations = []
  for step in kept:
    host = json.loads((workdir.checkpoints / str(step) / 'host/data.json').read_text())['host']
    evaluations.append(list(host['evaluations'].values())[-1]['evaluate/pass_at_1'])
  assert checkpoints.latest() == kept[-1] and max(evaluations) == max(found.values())
  saved = checkpoints.saved()
  assert [entry.number for entry in saved] == kept and saved[-1].step == 6
  assert [entry.score for entry in saved] == evaluations
  assert len(kept) == 1 + (evaluations[-1] < max(found.values()))
  stopped = tiny_run.copy(warm, tmp_path / 'stopped')
  (stopped.root / 'config.json').unlink()
  evaluates = lambda: any((stopped.root / 'journal').glob('evaluate_step_000002*'))
  with pytest.raises(Stopped):
    tiny_run.train(stopped, cfg, should_stop=evaluates)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, workdir, cfg)


@pytest.mark.long
def test_a_reference_and_importance_weights_survive_a_stop(warm, tmp_path):
  cfg = tiny_run.config(train=RESCORED | dict(learning_rate=1e-2))
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  for workdir in (plain, stopped):
    (workdir.root / 'config.json').unlink()
  tiny_run.train(plain, cfg)
  rows = [r for r in tiny_run.metrics(plain) if r['kind'] == 'train']
  # The first minibatch of the first step is scored by the reference itself, later ones are not.
  assert all(r['train/ratio_first'] < 1.0001 for r in rows)
  kl = [r['train/reference_kl'] for r in rows]
  assert 0 <= kl[0] < max(kl) and max(kl) > 1e-4
  assert all(0.999 < r['train/importance_mean'] < 1.001 for r in rows)  # nothing is stale here
  assert all(r['train/importance_capped'] == 0 for r in rows)
  with pytest.raises(Stopped):
    later = lambda: any((stopped.root / 'journal').glob('step_000004*'))
    tiny_run.train(stopped, cfg, should_stop=later)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)


LEVERS = dict(
  memory=dict(
    when='at_once', per_update=4, further_updates=2, per_further_update=3, rate_bound=2.0
  ),
  train=dict(epochs=2, success_weight=1.0),
)


def test_memory_passes_and_weighted_successes_are_at_work_and_survive_a_stop(warm, tmp_path):
  cfg = tiny_run.config(**LEVERS)
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  for workdir in (plain, stopped):
    (workdir.root / 'config.json').unlink()
  tiny_run.train(plain, cfg)
  rows = [r for r in tiny_run.metrics(plain) if r['kind'] == 'train']
  assert all(r['train/updates'] == 4 and r['train/passes'] == 2 for r in rows)
  first, *later = rows
  # Advantages minus their mean have as much mass above 0 as below, about; the weight doubles one.
  assert first['train/positive_mass_share'] == pytest.approx(2 / 3, abs=0.05)
  assert first['search/solve_rate'] > 0 and 'memory/mass_share' not in first  # nothing to remember
  for row in later:  # from the first solved problem on
    assert row['memory/further_updates'] == 2
    assert 0 < row['memory/token_share'] < 1 and 0 < row['memory/mass_share'] < 1
    assert 1 <= row['memory/age'] <= 5
    assert 1 <= row['memory/problems_used'] and row['memory/different'] >= 1
  assert all(r['train/ratio_first'] < 1.001 for r in rows)  # solutions are scored before use
  with pytest.raises(Stopped):
    in_step_4 = lambda: any((stopped.root / 'journal').glob('step_000004*'))
    tiny_run.train(stopped, cfg, should_stop=in_step_4)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)


@pytest.mark.parametrize('contrast_groups, refills', [(1, 0), (100, 2)])
def test_batches_are_drawn_until_enough_groups_have_contrast(
  warm, tmp_path, contrast_groups, refills
):
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  (workdir.root / 'config.json').unlink()
  cfg = tiny_run.config(
    train=dict(max_refills=2, contrast_groups=contrast_groups), curriculum=dict(round_steps=(1,))
  )
  tiny_run.train(workdir, cfg)
  (row,) = [r for r in tiny_run.metrics(workdir) if r['kind'] == 'train']
  assert row['search/refills'] == refills and row['search/unused_groups'] == 0
  assert row['search/contrast_share'] > 0
  # Minibatches of three problems, of all groups with contrast.
  num_groups = round(row['search/contrast_share'] * 6 * (1 + refills))
  assert row['train/updates'] == -(-num_groups // 3)


def test_a_run_ends_with_the_step_that_spends_its_tokens(done, warm, tmp_path):
  whole = [r for r in tiny_run.metrics(done[0]) if r['kind'] == 'train']
  spent = [r['search/tokens_so_far'] for r in whole]
  assert all(a < b for a, b in itertools.pairwise(spent)) and len(spent) == 6
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  (workdir.root / 'config.json').unlink()
  cfg = tiny_run.config(curriculum=dict(max_tokens=spent[3]))
  tiny_run.train(workdir, cfg)
  rows = tiny_run.metrics(workdir)
  assert [r for r in rows if r['kind'] == 'train'] == whole[:4]  # a step into the second round
  assert rows[-1]['kind'] == 'evaluate' and rows[-1]['when'] == 'after'


def test_a_finished_run_says_so_and_does_nothing(done, monkeypatch):
  workdir, _ = done
  before = (workdir.root / 'metrics.jsonl').read_bytes()
  notes = []
  session = tiny_run.session(workdir, tiny_run.config())
  monkeypatch.setattr(session.progress, 'note', notes.append, raising=False)
  assert training_lib.train(session)[0]['status'] == 'finished'
  assert len(notes) == 1 and 'nothing to do. More steps or rounds' in notes[0]
  assert 'round_steps (3,3) go on' in notes[0]
  assert (workdir.root / 'metrics.jsonl').read_bytes() == before


def test_a_workdir_of_another_config_is_refused_with_the_fields(done):
  workdir, _ = done
  with pytest.raises(InputError, match=r'search\.width: workdir 2, now 3'):
    tiny_run.train(workdir, tiny_run.config(search=dict(width=3)))
  neutral = tiny_run.config(log=dict(every_steps=5), checkpoint=dict(keep=9))
  assert tiny_run.train(workdir, neutral)['status'] == 'finished'


@pytest.mark.long
def test_a_run_goes_on_with_another_mesh_and_other_slots(done, warm, tmp_path):
  if len(jax.devices()) < 8:
    pytest.skip('needs 8 devices')
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  later = lambda: any((workdir.root / 'journal').glob('step_000003*'))
  with pytest.raises(Stopped):
    tiny_run.train(workdir, tiny_run.config(), should_stop=later)
  before = tiny_run.metrics(workdir)
  moved = tiny_run.config(
    mesh=dict(data=4, fsdp=2),
    train=dict(micro_rows=16),
    search=dict(num_slots=8),
    evaluate=dict(num_slots=4),
  )
  assert tiny_run.train(workdir, moved)['steps'] == 6
  rows = tiny_run.metrics(workdir)
  assert rows[: len(before)] == before == tiny_run.metrics(done[0])[: len(before)]
  assert all(r['train/ratio_first'] < 1.001 for r in rows if r['kind'] == 'train')


def test_a_second_process_is_refused(tmp_path):
  with lock(Workdir(tmp_path)), pytest.raises(InputError, match='in use by process'):
    with lock(Workdir(tmp_path)):
      pass


def test_nothing_hard_left_is_a_clear_end(warm, tmp_path):
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  cfg = tiny_run.config(curriculum=dict(hard_threshold=0.0))
  (workdir.root / 'config.json').unlink()
  summary = tiny_run.train(workdir, cfg)
  assert summary['status'] == 'done' and summary['steps'] == 0


def test_cached_problems_get_hybrid_rollouts(warm, tmp_path, monkeypatch):
  """Solutions found in a round are used in the next one, if the problem is still hard."""
  exists, filter_hard = [], Training.filter_hard

  def looking(training):
    exists.append((workdir.root / 'replay.jsonl').exists())
    return filter_hard(training)

  monkeypatch.setattr(Training, 'filter_hard', looking)
  workdir, cfg = (
    tiny_run.copy(warm, tmp_path / 'run'),
    tiny_run.config(curriculum=dict(hard_threshold=1.0, round_steps=(4, 4), filter_from='hard')),
  )
  (workdir.root / 'config.json').unlink()
  tiny_run.train(workdir, cfg)
  rows = tiny_run.metrics(workdir)
  filters = [r for r in rows if r['kind'] == 'filter']
  train = [r for r in rows if r['kind'] == 'train']
  assert filters[0]['replay/num_problems'] == 0
  # Problems are counted per round; the second filter looks at what the first one left.
  assert [r['round'] for r in filters] == [0, 1] and filters[0]['filter/num_problems'] == 24
  assert 0 < filters[1]['filter/num_hard'] <= filters[1]['filter/num_problems']
  assert filters[1]['filter/num_problems'] == filters[0]['filter/num_hard']
  if filters[1]['replay/num_problems']:
    assert any(r['search/cached_share'] > 0 for r in train[4:])
  assert all(r['search/cached_share'] == 0 for r in train[:4])
  assert exists == [False, True]  # people can read it after each round
  exported = (workdir.root / 'replay.jsonl').read_text().splitlines()
  assert all(json.loads(line)['problem_id'].startswith('countdown/') for line in exported)


@pytest.mark.parametrize(
  'sections, words',
  [
    (dict(search=dict(max_depth=9)), 'train.row_length'),
    (dict(search=dict(max_depth=300), train=dict(row_length=4096)), 'max_position_embeddings'),
    (dict(train=dict(minibatch_problems=4)), 'minibatch_problems'),
    (dict(search=dict(policy='prefix', max_expansions=1)), 'search.max_expansions = 1'),
    (dict(search=dict(policy='prefix', max_depth=1)), 'at least one segment'),
    (dict(search=dict(policy='prefix'), train=dict(objective='imitation')), 'no rollouts'),
    (dict(search=dict(policy='prefix'), prefix=dict(root_share=0.9)), 'prefix.root_share = 0.9'),
    (
      dict(search=dict(policy='prefix'), curriculum=dict(rehearsal_share=0.8)),
      'of the 1 hard problems of a batch',
    ),
    (dict(search=dict(policy='prefix'), prefix=dict(failure_rate=0.1)), 'raise failure_rate'),
    (dict(train=dict(frozen='(')), 'regular expression'),
    (dict(train=dict(frozen='nothing')), 'finds none of the parameters'),
    (dict(data=dict(source='nonsense:x')), 'source'),
    (dict(data=dict(prompt_limit=2)), 'prompt_limit'),
  ],
)
def test_bad_settings_are_refused_before_any_work(warm, tmp_path, sections, words):
  from ds_jax.config import config_from

  workdir = tiny_run.copy(warm, tmp_path / 'run')
  (workdir.root / 'config.json').unlink()
  with pytest.raises(InputError, match=words):
    tiny_run.train(workdir, config_from(dataclasses.asdict(tiny_run.config(**sections))))
  if (descriptors := pathlib.Path('/proc/self/fd')).exists():  # Linux
    opened = [os.path.realpath(d) for d in descriptors.iterdir()]
    assert not [name for name in opened if name.startswith(str(tmp_path))]
  assert not workdir.checkpoints.exists() or not list(workdir.checkpoints.iterdir())


def test_a_missing_model_and_one_without_tokenizer_are_named(tmp_path, warm):
  with pytest.raises(InputError, match='No checkpoint folder'):
    tiny_run.train(Workdir(tmp_path / 'new'), tiny_run.config())
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  for file in workdir.warmstart.glob('tokenizer*'):
    file.unlink()
  with pytest.raises(InputError, match='tokenizer'):
    tiny_run.train(workdir, tiny_run.config())


def test_a_stopped_warm_start_goes_on_with_the_same_batches(warm, tmp_path):
  cfg, workdir = tiny_run.config(), Workdir(tmp_path / 'run')
  for polls in (7, 12):
    left = itertools.chain(itertools.repeat(False, polls), itertools.repeat(True))
    with pytest.raises(Stopped):
      warmstart(tiny_run.session(workdir, cfg, lambda left=left: next(left)))
  tiny_run.warmstart(workdir.root, cfg)
  name = 'model.safetensors'
  assert (workdir.warmstart / name).read_bytes() == (warm.warmstart / name).read_bytes()


def test_a_step_whose_batches_have_no_contrast_learns_nothing_and_goes_on(warm, tmp_path):
  """No answer is ever right, also in the further batch that each step draws."""
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  cfg = tiny_run.config(
    verify=dict(verifier='exact'),
    train=dict(max_refills=1, contrast_groups=3, epochs=2, max_clip_fraction=0.5),
    memory=dict(when='at_once', further_updates=1),
    curriculum=dict(round_steps=(2,), filter_samples=0),
    evaluate=dict(before_training=False),
  )
  (workdir.root / 'config.json').unlink()
  assert tiny_run.train(workdir, cfg)['skipped_steps'] == 2
  for row in tiny_run.metrics(workdir)[:-1]:
    assert (row['search/refills'], row['search/contrast_share']) == (1, 0)
    assert row['train/skipped'] == 1 and row['memory/further_updates'] == 0


@pytest.mark.parametrize('cut_ends, is_ending', [('incomplete', True), ('graded', False)])
def test_responses_go_on_ending_unless_what_is_cut_off_pays(warm, tmp_path, cut_ends, is_ending):
  """A task where a longer text is likelier to hold the answer, and four in five are cut off."""
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  cfg = tiny_run.config(
    search=dict(
      policy='direct',
      cut_ends=cut_ends,
      width=1,
      width_decay=0,
      max_depth=1,
      segment_length=6,
      num_trajectories=8,
      max_expansions=8,
      incomplete_score=-1.0,
    ),
    verify=dict(verifier='python:ds_jax.testing.tiny_verifier.verify_early', degenerate='keep'),
    train=dict(
      learning_rate=1e-2,
      warmup_steps=0,
      advantage='q_mean',
      granularity='outcome',
      baseline_ends='all',
    ),
    curriculum=dict(
      round_steps=(8,), filter_samples=0, rehearsal_share=0.0, max_cached_per_problem=0
    ),
    evaluate=dict(num_samples=8),
  )
  (workdir.root / 'config.json').unlink()
  tiny_run.train(workdir, cfg)
  rows = tiny_run.metrics(workdir)
  before, after = (row for row in rows if row['kind'] == 'evaluate')
  assert 0.7 < before['evaluate/cut_share'] < 0.9
  assert (after['evaluate/cut_share'] < 0.1) == is_ending
  assert (after['evaluate/cut_correct_share'] > 0.8) != is_ending
  assert after['evaluate/pass_at_1'] > 0.7  # each learns what it is paid for


# Going on after the end.


def test_a_run_that_went_on_twice_ends_as_one_planned_so_from_the_start(done, warm, tmp_path):
  """Its last round is made longer, then another one follows; once it is stopped as it evaluates."""
  workdir, cfg = tiny_run.copy(warm, tmp_path / 'run'), tiny_run.config
  (workdir.root / 'config.json').unlink()
  plan = lambda *steps: cfg(curriculum=dict(round_steps=steps))
  assert tiny_run.train(workdir, plan(1))['steps'] == 1
  first_after = tiny_run.metrics(workdir)[-1]
  journals = lambda: [
    p for p in (workdir.root / 'journal').glob('evaluate_after*') if p.stat().st_size
  ]
  with pytest.raises(Stopped):
    tiny_run.train(workdir, plan(3), should_stop=lambda: bool(journals()))
  assert journals() and not workdir.summary.exists()  # it is not finished any more
  assert json.loads(workdir.summary_of(1).read_text())['after']
  summary = tiny_run.train(workdir, plan(3, 3))  # trees of the earlier evaluation are not taken in
  assert (summary['status'], summary['steps'], summary['rounds']) == ('done', 6, 2)
  rows = tiny_run.metrics(workdir)
  assert [r['step'] for r in rows if r.get('when') == 'after'] == [1, 6]  # the history is kept
  rows.remove(first_after)
  assert rows == tiny_run.metrics(done[0])
  arrays = [tiny_run.final_arrays(root, plan(3, 3)) for root in (workdir, done[0])]
  for x, y in zip(*arrays, strict=True):
    np.testing.assert_array_equal(x, y)
  replays = [(root.root / 'replay.jsonl').read_bytes() for root in (workdir, done[0])]
  assert replays[0] == replays[1]


def test_plans_that_do_not_begin_with_what_was_done_are_refused(done):
  for steps in ((3,), (3, 2, 4), (2, 4, 9), (4, 3)):
    with pytest.raises(InputError, match=r'round_steps = [\d,]+ does not begin .* done, 3,3;'):
      tiny_run.train(done[0], tiny_run.config(curriculum=dict(round_steps=steps)))
  assert done[0].summary.exists() and tiny_run.train(done[0], tiny_run.config())['steps'] == 6


def test_a_run_that_learns_nothing_says_so_at_once_and_at_the_end(warm, tmp_path):
  """No answer is ever right; nothing is evaluated before."""
  workdir, notes = tiny_run.copy(warm, tmp_path / 'run'), Notes()
  cfg = tiny_run.config(
    verify=dict(verifier='exact'),
    curriculum=dict(round_steps=(5,)),
    evaluate=dict(before_training=False),
  )
  (workdir.root / 'config.json').unlink()
  session = dataclasses.replace(tiny_run.session(workdir, cfg), progress=notes)
  summary, text = train(session)
  said = [line for line in notes.messages if 'Nothing was learnt' in line]
  assert [line.split(':')[0] for line in said] == ['Step 1', 'Step 5, 5 times in a row']
  assert 'of 2 updates 2 had nothing to train on. Of 6 problems: 6 with only wrong ends.' in said[0]
  assert 'train.uniform_trees=drop' in said[0] and 'responses is right' in said[0]
  assert [line.split(':')[0] for line in notes.messages if 'responses is right' in line] == [
    'Filter, round 0', 'Step 1', 'Step 5, 5 times in a row',
  ]  # fmt: skip
  assert (summary['updates'], summary['skipped_updates'], summary['skipped_steps']) == (10, 10, 5)
  assert json.loads(workdir.summary.read_text())['skipped_updates'] == 10
  assert 'NOTHING WAS LEARNT: all 10 updates were skipped.' in text
  assert summary['before'] is None and 'before' not in text and 'change' not in text
  assert text.splitlines()[-1].startswith('pass@1 0.0 % [0.0, ')
  rows = tiny_run.metrics(workdir)
  assert [r['kind'] for r in rows] == ['filter'] + ['train'] * 5 + ['evaluate']
  # What would be a mean over nothing is absent.
  absent = {'train/loss', 'train/ratio_first', 'train/ratio_max_log', 'train/clip_fraction'}
  absent |= {'train/approx_kl', 'train/entropy', 'train/grad_norm', 'train/response_tokens'}
  absent |= {'train/reference_kl', 'train/copies_per_token'}
  for row in rows[1:-1]:
    assert row['train/skipped'] == 1 and row['train/updates'] == 2
    assert not absent & set(row)


def test_the_responses_of_a_runs_evaluations_are_kept(done):
  root = done[0].root / 'evaluations'
  assert [path.name for path in sorted(root.iterdir())] == [
    'step_000000_before.jsonl',
    'step_000006_after.jsonl',
  ]
  rows = [json.loads(line) for line in (root / 'step_000006_after.jsonl').read_text().splitlines()]
  after = done[1]['after']
  assert len(rows) == 6 * 2 and {row['sample'] for row in rows} == {0, 1}
  assert sum(row['verdict'] == 'correct' for row in rows) / 12 == pytest.approx(after['pass_at_1'])
  assert np.mean([row['is_cut'] for row in rows]) == pytest.approx(after['cut_share'])
  assert all(row['question'] and row['gold'] for row in rows)
  assert any(row['response'] for row in rows)


PREFIX = dict(
  search=dict(policy='prefix', max_expansions=12),
  prefix=dict(withdraw_rate=1.0, advantage=0.5, root_share=0.2, first_share=0.8),
  curriculum=dict(rehearsal_share=0.0, filter_samples=0),
)


def test_rollouts_from_prefixes_are_at_work_and_survive_a_stop(warm, tmp_path, root):
  cfg = tiny_run.config(**PREFIX)
  plain, stopped = (tiny_run.copy(warm, tmp_path / name) for name in ('plain', 'stopped'))
  for workdir in (plain, stopped):
    (workdir.root / 'config.json').unlink()
  num_compiled = tiny_run.train_counted(plain, cfg)
  assert num_compiled[2:] == [0] * 4 and num_compiled[0] > 0
  assert not undocumented(read_metrics(plain.metrics), root)
  first, *later = (r for r in tiny_run.metrics(plain) if r['kind'] == 'train')
  assert first['prefix/share'] == 0 and first['prefix/problems_with_solution'] > 0
  assert 'prefix/length' not in first  # nothing to start within yet
  began = [row for row in later if row['prefix/share'] > 0]
  assert len(began) >= 4
  for row in began:
    assert row['prefix/share'] <= 4 / 6  # two of six start from the root
    assert 0 < row['prefix/length'] < 1 and 0 <= row['prefix/right_share'] <= 1
    assert row['prefix/failure_share'] == 0 and row['search/cached_share'] == 0
  assert any(row['prefix/contrast_share'] > 0 for row in began)  # they were learnt from
  assert any(row.get('prefix/mass_share', 0) > 0 for row in began)
  assert all(row['train/ratio_first'] < 1.001 for row in later)  # prefixes are scored before use
  with pytest.raises(Stopped):
    in_step_4 = lambda: any((stopped.root / 'journal').glob('step_000004*'))
    tiny_run.train(stopped, cfg, should_stop=in_step_4)
  tiny_run.train(stopped, cfg)
  tiny_run.assert_same_run(stopped, plain, cfg)


def test_figures_of_the_root_are_of_the_root_whatever_prefixes_do(warm, tmp_path):
  """One step of a run that knows a right response of every problem."""
  workdir, cfg = tiny_run.copy(warm, tmp_path / 'run'), tiny_run.config(**PREFIX)
  (workdir.root / 'config.json').unlink()
  with tiny_run.opened(tiny_run.session(workdir, cfg)) as training:
    training.filter_hard()
    groups, _, host = training.sampler.sample(training.host)
    longest = max((t for group in groups for t in group), key=lambda t: len(t.tokens))
    right = dataclasses.replace(longest, is_correct=True)
    ends = [[dataclasses.replace(right, problem_id=name)] for name in training.train_prompts]
    solutions = Prefixes().add(ends, cfg.prefix).solutions
    host = dataclasses.replace(host, step=1, prefixes=Prefixes(solutions))
    groups, figures, after = training.sampler.sample(host)
  given = [group for group in groups if group[0].num_given]
  root = [group for group in groups if not group[0].num_given]
  assert len(given) == 4 and len(root) == 2
  assert figures['search/trees'] == 6  # what was grown in all; the rest is of trees from the root
  for name, of_groups in (('search/solve_rate', root), ('prefix/solve_rate', given)):
    assert figures[name] == np.mean([any(t.is_correct for t in group) for group in of_groups])
  pairs = [np.array(state.splits.blocks)[:, 0].sum() for state in (host, after)]
  assert pairs[1] - pairs[0] == sum(len(group) * (len(group) - 1) / 2 for group in root)
  assert set(after.prefixes.rates) == {group[0].problem_id for group in root}
  generated = sum(len(t.tokens) for group in groups for t in group)
  assert generated == figures['search/tokens'] == after.generated_tokens - host.generated_tokens
  prompts = {tuple(tokens.tolist()) for _, tokens in training.train_prompts.values()}
  found = [s for cached in after.found.solutions.values() for s in cached]
  assert found and all(s.prompt_tokens in prompts for s in found)  # they are whole
