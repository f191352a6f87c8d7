"""The model card of an export: read back by the hub's own class, and its settings by ds_jax."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex

import pytest
from huggingface_hub import ModelCard

from ds_jax.cli.flags import parse
from ds_jax.config import Config, DataConfig, config_from, settings_digest
from ds_jax.interfaces import SilentProgress
from ds_jax.run.model_card import Base, Exported, base_of, exported_in, model_card
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir
from ds_jax.testing import tiny_run

EVALUATION = {
  'kind': 'evaluate',
  'evaluate/pass_at_1': 0.25,
  'evaluate/pass_at_1_low': 0.125,
  'evaluate/pass_at_1_high': 0.5,
  'evaluate/num_problems': 8,
  'evaluate/num_samples': 2,
}
ROWS = [
  EVALUATION | {'step': 0, 'when': 'before'},
  {'kind': 'train', 'step': 1, 'search/tokens_so_far': 1000},
  EVALUATION | {'step': 1, 'when': 'step_000001', 'evaluate/pass_at_1': 0.375},
  {'kind': 'train', 'step': 2, 'search/tokens_so_far': 2000},
  {'kind': 'train', 'step': 3, 'search/tokens_so_far': 3000},
  EVALUATION | {'step': 3, 'when': 'after', 'evaluate/pass_at_1': 0.875},
]


def session(folder, config, rows=()) -> Session:
  workdir = Workdir(folder / 'mine')
  workdir.root.mkdir()
  workdir.metrics.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return Session(config, workdir, SilentProgress())


def card_of(run, step=3, base=None, **exported) -> ModelCard:
  fields = dict(step=step, dtype='float32', adapter=False) | exported
  base = base or base_of(run, may_download=False)
  return ModelCard(model_card(run, base, Exported.of(run.config, **fields), size=1234))


def blocks(card, language) -> list[str]:
  return re.findall(rf'```{language}\n(.*?)\n```', card.text, re.DOTALL)


def test_the_head_says_to_the_hub_what_it_is(tmp_path):
  run = session(tmp_path, tiny_run.config(seed=5), ROWS)
  head = card_of(run).data.to_dict()
  record = head.pop('ds_jax')
  assert head == {
    'library_name': 'transformers',
    'pipeline_tag': 'text-generation',
    'tags': ['ds_jax', 'deepsearch', 'reinforcement-learning', 'grpo', 'tree-search'],
  }
  assert record['seed'] == 5 and record['step'] == 3 and record['version']
  assert record['settings'] == settings_digest(run.config)


def test_the_settings_in_it_are_those_of_the_run(tmp_path):
  config = tiny_run.config(
    seed=3,
    search=dict(lambda_uct=float('inf'), policy='direct'),
    data=dict(template_arguments={'thinking': False, 'words': "it's\n```\n# a `title`"}),
    log=dict(writers=('jsonl',)),
  )
  config = config_from(dataclasses.asdict(config))
  card = card_of(session(tmp_path, config))
  scope = {}
  exec(blocks(card, 'python')[-1], scope)
  again = config_from(scope['get_config']())
  assert settings_digest(again) == settings_digest(config) != settings_digest(Config())
  assert 'log.' not in card.text


def test_its_commands_are_commands(tmp_path, monkeypatch):
  run = session(tmp_path, tiny_run.config())
  card = card_of(run, dtype='bfloat16')
  (tmp_path / 'settings.py').write_text(blocks(card, 'python')[-1])
  monkeypatch.chdir(tmp_path)
  commands = [shlex.split(line)[1:] for line in blocks(card, 'bash')[0].splitlines()]
  assert [name for name, *_ in commands] == ['warmstart', 'train', 'export']
  for name, *arguments in commands[:2]:
    assert settings_digest(parse(name, arguments).config) == settings_digest(run.config)
  args = parse('export', commands[2][1:]).args
  assert (args.step, args.dtype, args.adapter) == ('3', 'bfloat16', False)


@pytest.mark.parametrize(
  'step, row, steps',
  [
    (3, '| 25.0 % [12.5, 50.0] | 87.5 % [12.5, 50.0] | +62.5 points |', '3 training steps · 3,000'),
    (1, '| 25.0 % [12.5, 50.0] | 37.5 % [12.5, 50.0] | +12.5 points |', '1 training step · 1,000'),
    (2, '| 25.0 % [12.5, 50.0] | – |  |', '2 training steps · 2,000'),
  ],
)
def test_the_evaluation_is_that_of_the_exported_step(tmp_path, step, row, steps):
  text = card_of(session(tmp_path, tiny_run.config(), ROWS), step).text
  assert f'| pass@1 (95 % interval) {row}' in text and steps in text
  assert ('themselves were not evaluated' in text) == (step == 2)


def test_each_of_several_sources_has_its_row(tmp_path):
  of_each = {f'evaluate/pass_at_1/{name}': 0.5 for name in ('sums', 'a|b <b>')}
  rows = [ROWS[0] | of_each, ROWS[-1] | of_each]
  text = card_of(session(tmp_path, tiny_run.config(), rows)).text
  assert '| sums | 50.0 % | 50.0 % | +0.0 points |' in text
  assert r'| a\|b &lt;b&gt; | 50.0 %' in text


def test_a_run_without_evaluations_says_so(tmp_path):
  assert 'evaluated neither' in card_of(session(tmp_path, tiny_run.config())).text


def test_damaged_metrics_do_not_keep_from_an_export(tmp_path):
  run = session(tmp_path, tiny_run.config(), ROWS)
  run.workdir.metrics.write_text('{"step": 1\n{}\n')
  assert 'evaluated neither' in card_of(run).text


def test_benchmarks_of_these_parameters_are_in_it(tmp_path):
  run = session(tmp_path, tiny_run.config())
  for step in (2, 3):
    folder = run.workdir.root / f'evaluations/{step}'
    folder.mkdir(parents=True)
    fields = {'step': step, 'parameters': f'/home/me/mine, step {step}'}
    (folder / 'table.json').write_text(json.dumps(fields))
    (folder / 'table.md').write_text(f'| /home/me/mine, step {step} | 51.77 |')
  text = card_of(run).text
  assert '| mine, step 3 | 51.77 |' in text and 'step 2' not in text and '/home' not in text


def model_folder(folder, readme):
  folder.mkdir(parents=True)
  (folder / 'README.md').write_text(readme)
  return str(folder)


def test_base_and_data_are_named_as_the_hub_has_them(tmp_path):
  cached = tmp_path / 'models--Qwen--Qwen2.5-0.5B' / 'snapshots/1234'
  path = model_folder(cached, '---\nlicense: apache-2.0\n---\n')
  data = dict(source='2*hf:org/sums:main + hf:open + file:/home/me/x.jsonl + gym:chain_sum')
  run = session(tmp_path, tiny_run.config(model=dict(path=path), data=data))
  card = card_of(run)
  assert card.data.base_model == 'Qwen/Qwen2.5-0.5B' and card.data.license == 'apache-2.0'
  assert card.data.datasets == ['org/sums', 'open']
  assert 'https://huggingface.co/Qwen/Qwen2.5-0.5B' in card.text
  assert str(tmp_path) not in card.text and '/home/me' not in card.text
  assert "'2*hf:org/sums:main + hf:open + file:x.jsonl + gym:chain_sum'" in card.text
  assert 'warmstart' not in blocks(card, 'bash')[0]


def test_a_folder_of_a_person_is_named_without_what_is_above_it(tmp_path):
  path = model_folder(tmp_path / 'mine_too', '---\nbase_model: org/first\nlicense: mit\n---\n')
  card = card_of(session(tmp_path, tiny_run.config(model=dict(path=path))))
  assert card.data.base_model == 'org/first' and card.data.license == 'mit'
  assert 'The model `mine_too` (from [org/first]' in card.text and str(tmp_path) not in card.text


@pytest.mark.parametrize(
  'readme',
  [
    'no head',
    '---\nlicense: [a, b]\nbase_model: {a: b}\n---\n',
    '---\nlicense: "mit\\n# hello <script>"\nbase_model: "x|y/../z"\n---\n',
    '---\nlicense: {\n---\n',
    '---\n- 1\n---\n',
    '---\nlicense: !!python/object/apply:os.system ["echo"]\n---\n',
  ],
)
def test_a_card_that_says_nonsense_says_nothing(tmp_path, readme):
  path = model_folder(tmp_path / 'theirs', readme)
  card = card_of(session(tmp_path, tiny_run.config(model=dict(path=path))))
  assert card.data.license is None and card.data.base_model is None
  assert 'its folder does not say' in card.text and 'script' not in card.text


def test_adapters_are_of_peft(tmp_path):
  run = session(tmp_path, tiny_run.config(train=dict(lora_rank=2)))
  card = card_of(run, base=Base('org/first', 'org/first'), adapter=True)
  assert card.data.library_name == 'peft' and card.data.base_model == 'org/first'
  assert 'lora' in card.data.tags and 'PeftModel.from_pretrained(base, NAME)' in card.text
  assert '--adapter' in blocks(card, 'bash')[0]


def test_worked_solutions_are_no_reinforcement(tmp_path):
  run = session(tmp_path, tiny_run.config(train=dict(objective='imitation')))
  card = card_of(run)
  assert card.data.tags == ['ds_jax', 'deepsearch', 'sft']
  assert 'trained on worked solutions' in card.text and 'reinforcement' not in card.text


def test_an_export_is_known_by_its_card(tmp_path):
  run = session(tmp_path, tiny_run.config(data=DataConfig(source='countdown')))
  card_of(run, step=2).save(tmp_path / 'README.md')
  assert exported_in(tmp_path) == Exported.of(run.config, step=2, dtype='float32', adapter=False)
  for text in ('', '---\nds_jax: 3\n---\n', '---\nds_jax: {step: 2}\n---\n'):
    (tmp_path / 'README.md').write_text(text)
    assert exported_in(tmp_path) is None
