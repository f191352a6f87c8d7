"""The card of an exported model, README.md: what it is, how good, and how it was made.

Its head is YAML that the Hugging Face hub reads. The section `ds_jax` there says which parameters
the folder holds, so that a command knows its own export again.
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ds_jax.checks import InputError
from ds_jax.config import PLACE_FIELDS, SOURCE_FIELDS, Config, changed_settings, settings_digest
from ds_jax.config.mixtures import parse_sources
from ds_jax.config.places import without_folders
from ds_jax.hub import MODEL_CARD, card_file, is_hub_name
from ds_jax.report.metrics import read_metrics
from ds_jax.report.summary import cost_line, make_summary, table_rows
from ds_jax.report.text import visible
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir

_MAX_BYTES = 2**20  # of a model's card that is read
# A folder of huggingface_hub's cache, which has the model's name in its own.
_IN_CACHE = re.compile(r'models--([\w.-]+?)--([\w.-]+)/snapshots/')
_LICENSE = re.compile(r'[\w.+ -]{1,80}')
_HOW = {
  'deepsearch': 'with Monte Carlo tree search inside the training',
  'faithful': 'with Monte Carlo tree search inside the training, by the rules of the released code',
  'direct': 'from groups of rollouts',
  'fork': 'from rollouts, and forks of them where these pay',
  'prefix': 'from rollouts, some of which start within an earlier response',
}
_SETTINGS = (
  'Settings that differ from the defaults, as `settings.py`; of files and folders only the names:'
)
_TREE_POLICIES = ('deepsearch', 'faithful')


@dataclasses.dataclass(frozen=True)
class Exported:
  """Which parameters of a run a folder holds."""

  step: int  # training steps behind them
  dtype: str  # of the tensors
  adapter: bool  # adapters alone
  settings: str  # digest of the run's settings

  @classmethod
  def of(cls, config: Config, *, step: int, dtype: str, adapter: bool) -> Exported:
    return cls(step, dtype, adapter, settings_digest(config))


@dataclasses.dataclass(frozen=True)
class Base:
  """The model that a run began with."""

  path: str  # as the run names it, without folders of this machine; '': a new decoder
  hub_name: str = ''  # '': as far as its folder says, it is not on the hub
  card: ModelCardData = dataclasses.field(default_factory=ModelCardData)


def exported_in(folder: Path) -> Exported | None:
  """What a folder holds by its card; None: the card is none of ours."""
  data = _read_card(folder / MODEL_CARD)
  record = data.get('ds_jax')
  names = [field.name for field in dataclasses.fields(Exported)]
  if not isinstance(record, dict) or not set(names) <= record.keys():
    return None
  return Exported(**{name: record[name] for name in names})


def base_of(session: Session, *, may_download: bool) -> Base:
  """The model that a run began with, and what its own card says.

  Args:
    session: of the run.
    may_download: the card of a model on the hub, where it is not on this machine.
  """
  path = session.model or session.config.model.path
  if not path:
    return Base('')
  card = _read_card(card_file(path, may_download=may_download))
  hub_name, cached = '', _IN_CACHE.search(path)
  if is_hub_name(path):
    hub_name = path
  elif cached:
    hub_name = '/'.join(cached.groups())
  elif isinstance(card.base_model, str) and is_hub_name(card.base_model):
    hub_name = card.base_model
  shown = path if is_hub_name(path) else without_folders(path, is_source=False)
  return Base(hub_name if cached else shown, hub_name, card)


def save_card(
  run: Session, folder: Path, exported: Exported, *, size: int, may_download: bool
) -> None:
  """Adds the card of an export to its folder; see `model_card` and `base_of`."""
  card = model_card(run, base_of(run, may_download=may_download), exported, size=size)
  (folder / MODEL_CARD).write_text(card, encoding='utf-8')


def model_card(run: Session, base: Base, exported: Exported, *, size: int) -> str:
  """Returns the card of an export.

  Args:
    run: config and workdir of the run.
    base: the model that it began with.
    exported: what is exported of it.
    size: how many parameters there are.
  """
  name = run.workdir.root.resolve().name
  title = f'{_text(name)}, step {exported.step}'
  summary = _summary_at(_metrics(run), exported.step)
  sections = [
    f'# {title}',
    _what_it_is(run.config, base, exported, size=size),
    _use(base, exported),
    '## Evaluation',
    _evaluation(run.config, summary, exported),
    *_benchmarks(run.workdir, exported.step, title),
    '## Training',
    _training(run.config, base, summary),
    _making(run.config, exported, folder=f'runs/{name}'),
  ]
  head = _head(run.config, base, exported)
  return f'---\n{head.to_yaml()}\n---\n\n' + '\n\n'.join(sections) + '\n'


def _read_card(file: Path | None) -> ModelCardData:
  """The head of a card; an empty one where there is no card or it cannot be read."""
  try:
    if file is not None and file.stat().st_size <= _MAX_BYTES:
      return ModelCard.load(file, ignore_metadata_errors=True).data
  except Exception:  # a file of somebody else's: whatever is wrong with it, it says nothing
    pass
  return ModelCardData()


def _head(config: Config, base: Base, exported: Exported) -> ModelCardData:
  tags = ['ds_jax', 'deepsearch']
  if config.train.objective == 'imitation':
    tags.append('sft')
  else:
    tags += ['reinforcement-learning', 'grpo']
    if config.search.policy in _TREE_POLICIES:
      tags.append('tree-search')
  if config.train.lora_rank:
    tags.append('lora')
  record = {'version': _version(), 'seed': config.seed, **dataclasses.asdict(exported)}
  return ModelCardData(
    base_model=base.hub_name or None,
    datasets=_hub_datasets(config) or None,
    library_name='peft' if exported.adapter else 'transformers',
    pipeline_tag='text-generation',
    tags=tags,
    **_license_of(base.card),
    ds_jax=record,
  )


def _version() -> str:
  """That of ds_jax, which is loaded as soon as a part of it is, and stands above this layer."""
  return sys.modules['ds_jax'].__version__


def _hub_datasets(config: Config) -> list[str]:
  """Names on the hub of the sources of training problems that come from there."""
  names = []
  for part in parse_sources(config.data.source):
    kind, _, rest = part.source.partition(':')
    name = rest.partition(':')[0]
    if kind == 'hf' and not Path(name).is_dir():
      names.append(name)
  return list(dict.fromkeys(names))


def _license_of(card: ModelCardData) -> dict[str, str]:
  """The licence as the head of a card says it; of others' texts only what looks like one."""
  fields = {}
  for field in ('license', 'license_name'):
    value = card.get(field)
    if isinstance(value, str) and _LICENSE.fullmatch(value):
      fields[field] = value
  link = card.get('license_link')
  if isinstance(link, str) and re.fullmatch(r'https://[\w./~%+-]{1,200}', link):
    fields['license_link'] = link
  return fields if 'license' in fields else {}


def _what_it_is(config: Config, base: Base, exported: Exported, *, size: int) -> str:
  start = 'A new decoder, warm-started on worked solutions and then'
  if base.path:
    start = f'{_linked(base)},'
  how = f'trained by reinforcement learning with verified answers, {_HOW[config.search.policy]}'
  if config.train.objective == 'imitation':
    how = 'trained on worked solutions'
  what = f'{size:,} parameters in {exported.dtype}'
  if exported.adapter:
    what = f'LoRA adapters alone, {size:,} numbers in {exported.dtype}'
  return (
    f'{start} {how} ({exported.step:,} steps), by ds_jax {_version()}, which is '
    f'[DeepSearch](https://arxiv.org/abs/2509.25454) in JAX. {what[0].upper()}{what[1:]}.'
  )


def _linked(base: Base) -> str:
  """The base model for people, with its address where it has one."""
  if base.hub_name == base.path:
    return f'[{base.path}](https://huggingface.co/{base.path})'
  origin = ''
  if base.hub_name:
    origin = f' (from [{base.hub_name}](https://huggingface.co/{base.hub_name}))'
  return f'The model `{_code(base.path)}`{origin}'


def _use(base: Base, exported: Exported) -> str:
  lines = [
    'from transformers import AutoModelForCausalLM, AutoTokenizer',
    '',
    "NAME = '.'  # this folder, or the name that the model has on the hub",
    'tokenizer = AutoTokenizer.from_pretrained(NAME)',
  ]
  if exported.adapter:
    base_name = base.hub_name or base.path or 'FOLDER OF THE WARM START'
    lines.insert(0, 'from peft import PeftModel')
    lines += [
      f'base = AutoModelForCausalLM.from_pretrained({base_name!r})',
      'model = PeftModel.from_pretrained(base, NAME)',
    ]
  else:
    lines.append('model = AutoModelForCausalLM.from_pretrained(NAME)')
  return _fenced('python', lines)


def _metrics(run: Session) -> list[dict[str, Any]]:
  """The run's metrics; none where they are damaged, which is told: an export does without."""
  try:
    return read_metrics(run.workdir.metrics)
  except InputError as e:
    run.progress.note(f'The model card has no figures: {e}')
    return []


def _summary_at(metrics: Sequence[Mapping[str, Any]], step: int) -> dict[str, Any]:
  """A summary (report/summary.py) of a run as if it had ended at a step."""
  rows = []
  for row in metrics:
    if row['step'] > step:
      continue
    if row['kind'] == 'evaluate' and row.get('when') != 'before':
      row = row | {'when': 'after' if row['step'] == step else 'on the way'}
    rows.append(row)
  return make_summary(rows)


def _evaluation(config: Config, summary: Mapping[str, Any], exported: Exported) -> str:
  if not summary['before'] and not summary['after']:
    return 'The run evaluated neither the model that it began with nor these parameters.'
  head, *rows = table_rows(summary)
  settings = config.evaluate
  sampling = f'sampled at temperature {settings.temperature:g}'
  if settings.top_p < 1:
    sampling += f', top-p {settings.top_p:g}'
  problems = config.data.eval_source or f'the held-out split of {config.data.source}'
  text = (
    f'Problems: {_text(_without_folders("data.eval_source", problems))}, {sampling}; answers are '
    f'judged by the verifier {_text(config.verify.verifier)}. In brackets the 95 % interval.'
  )
  if not summary['after']:
    text += f' The parameters of step {exported.step:,} themselves were not evaluated in the run.'
  rows = [(_text(label), *cells) for label, *cells in rows]
  return f'{_table(head, rows)}\n\n{text}'


def _benchmarks(workdir: Workdir, step: int, title: str) -> list[str]:
  """Tables of `ds-jax evaluate --benchmarks` of these parameters, where there are any."""
  texts = []
  for file in sorted((workdir.root / 'evaluations').glob('*/table.json')):
    try:
      table, text = json.loads(file.read_text()), file.with_name('table.md').read_text()
      is_of_step, label = table['step'] == step, table['parameters']
    except (OSError, ValueError, LookupError, TypeError):
      continue  # of an evaluation that did not end, or none of ours
    if is_of_step:
      texts.append(text.replace(label, title).strip())
  return texts


def _training(config: Config, base: Base, summary: Mapping[str, Any]) -> str:
  license_ = _license_of(base.card).get('license', 'its folder does not say')
  if not base.path:
    license_ = 'none: a new model'
  rows = [
    ('training problems', f'`{_code(_without_folders("data.source", config.data.source))}`'),
    ('what it took', _text(cost_line(summary))),
    ('seed', f'{config.seed}'),
    ('licence of the base model', _text(license_)),
  ]
  return _table(('', ''), rows)


def _making(config: Config, exported: Exported, *, folder: str) -> str:
  """The settings as a config file, and the commands that make the model from it."""
  lines = [
    'import dataclasses',
    '',
    'import ml_collections',
    '',
    'from ds_jax.config import Config',
    '',
    '',
    'def get_config():',
    '  config = ml_collections.ConfigDict(dataclasses.asdict(Config()))',
  ]
  for field, value in changed_settings(config).items():
    lines.append(f'  config.{field} = {_python(field, value)}')
  lines.append('  return config')
  given = f'--config=settings.py --workdir={folder}'
  commands = [f'ds-jax train {given}']
  if not config.model.path:
    commands.insert(0, f'ds-jax warmstart {given}')
  flags = [f'--checkpoint={folder}', f'--step={exported.step}', f'--dtype={exported.dtype}']
  if exported.adapter:
    flags.append('--adapter')
  commands.append(f'ds-jax export {" ".join(flags)} --output=exported')
  return '\n\n'.join(
    [
      _SETTINGS,
      _fenced('python', lines),
      'The commands that make this model of them:',
      _fenced('bash', commands),
    ]
  )


def _python(field: str, value: Any) -> str:
  """A setting as Python, places without the folders of this machine."""
  if isinstance(value, float) and not math.isfinite(value):
    return f"float('{value}')"
  return repr(_without_folders(field, value)) if isinstance(value, str) else repr(value)


def _without_folders(field: str, value: str) -> str:
  if field not in PLACE_FIELDS or is_hub_name(value):
    return value
  return without_folders(value, is_source=field in SOURCE_FIELDS)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [_row(head), '|' + ' --- |' * len(head), *map(_row, rows)]
  return '\n'.join(lines)


def _row(cells: Sequence[str]) -> str:
  return '| ' + ' | '.join(cell.strip() for cell in cells) + ' |'


def _fenced(language: str, lines: Sequence[str]) -> str:
  return '\n'.join([f'```{language}', *lines, '```'])


def _text(text: str) -> str:
  """Text in Markdown that means itself."""
  return re.sub(r'([\\`*_\[\]|#])', r'\\\1', html.escape(visible(text), quote=False))


def _code(text: str) -> str:
  """Text between backticks, in a table too."""
  return visible(text).replace('`', "'").replace('|', r'\|')
