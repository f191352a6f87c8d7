"""The planner: names of slices, bytes that add up, exit codes, and one real TPU compilation."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import pytest
import tiny_run

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.plan import command, programs, topology


def test_names_of_slices():
  assert topology.parse_topology('v5p:2x2x1') == ('v5p', (2, 2, 1))
  assert topology.parse_topology('v5e:16x16') == ('v5e', (16, 16))


@pytest.mark.parametrize('name', ['v5p', 'v5p:2', 'v5e:0x2', 'v5e:2x2x1', 'v9:2x2', 'v5e:2x2 '])
def test_bad_names_of_slices_are_refused(name):
  with pytest.raises(InputError):
    topology.parse_topology(name)


@pytest.fixture(scope='module')
def config_path(tmp_path_factory):
  return tiny_run.config_file(tmp_path_factory.mktemp('plan'))


def test_what_is_here_fits_and_the_split_adds_up(capsys, config_path):
  assert main(['plan', f'--config={config_path}', '--json']) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert found['status'] == 'fits' and found['exit_code'] == 0
  assert set(found['parts']) == set(command.REMEDIES)
  for use in found['parts'].values():
    split = [use[field.name] for field in dataclasses.fields(programs.Use)]
    assert sum(split) == use['total'] and min(split) >= 0
  assert found['parts']['expand']['caches'] > 0


def test_too_little_memory_is_exit_3(capsys, monkeypatch, config_path):
  monkeypatch.setattr(topology, '_memory_here', lambda: (1000, 'a test'))
  assert main(['plan', f'--config={config_path}']) == 3
  assert 'expand does not fit: lower search.num_slots' in capsys.readouterr().out


def test_missing_libtpu_is_named(capsys, monkeypatch, config_path):
  monkeypatch.setattr(topology.importlib.util, 'find_spec', lambda name: None)
  assert main(['plan', f'--config={config_path}', '--topology=v5e:2x2']) == 2
  assert "pip install 'ds_jax[tpu]'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
def test_programs_compile_for_a_tpu_that_is_not_here(capsys, config_path):
  assert main(['plan', f'--config={config_path}', '--topology=v5e:2x2', '--json',
               '--config.mesh.data=1', '--config.mesh.fsdp=-1']) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert found['mesh'] == {'data': 1, 'fsdp': 4, 'tensor': 1}
  assert set(found['parts']) == set(command.REMEDIES)
