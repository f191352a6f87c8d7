"""The report of a run: its trees, what it draws beside its own curve, and when that is missing."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from ds_jax.checks import InputError
from ds_jax.run.reporting import report
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run
from ds_jax.testing.notes import Notes

CURVE = {
  'label': 'others',
  'command': 'python others.py',
  'k': 4,
  'points': [{'tokens': 0, 'pass_at_1': 0.1, 'pass_at_k': 0.2}],
}


def test_a_curve_beside_is_drawn_and_may_go(tmp_path):
  """A new run is refused without the file; one that has begun does without it, and says so."""
  file = tmp_path / 'curve.json'
  cfg = tiny_run.config(log=dict(beside=str(file)), curriculum=dict(round_steps=(1,)))
  workdir = tiny_run.warmstart(tmp_path / 'run', cfg)
  with pytest.raises(InputError, match='log.beside: .*curve.json cannot be read'):
    tiny_run.train(workdir, cfg)
  file.write_text(json.dumps(CURVE))
  tiny_run.train(workdir, cfg)
  page = (workdir.root / 'report.html').read_text()
  assert 'Broken lines: others' in page
  examples = json.loads(workdir.examples.read_text())
  for i, example in enumerate(examples):  # they are there to be looked at
    assert f'id="tree-{i}-n{len(example["tree"]["nodes"]) - 1}"' in page
    assert example['question'] in page

  file.unlink()
  shutil.copytree(workdir.root, tmp_path / 'moved')
  session = dataclasses.replace(
    tiny_run.session(Workdir(tmp_path / 'moved'), cfg), progress=Notes()
  )
  report(session)
  assert 'curve.json cannot be read' in session.progress.messages[0]
  assert 'Broken lines' not in (tmp_path / 'moved/report.html').read_text()
  longer = tiny_run.config(log=dict(beside=str(file)), curriculum=dict(round_steps=(2,)))
  assert tiny_run.train(workdir, longer)['steps'] == 2
