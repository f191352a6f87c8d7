"""The sub-commands of `ds-jax`: what their help says, and which flags they have."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Command:
  """One sub-command: its help and the flags it has besides --config and --json."""

  help: str
  flags: dict[str, str]
  needs_config: bool = True
  stops_gently: bool = False  # Ctrl-C and SIGTERM save first
  is_team: bool = False  # may be run by several processes together
  positional: str = ''  # a flag whose name may be left out
  example: str = ''
  repeated: tuple[str, ...] = ()  # flags that may be given several times


_WORKDIR = 'folder of the run'
_CLUSTER = {
  'coordinator': 'HOST:PORT of process 0; TPU VMs, GKE and Slurm need none of these',
  'num_processes': 'how many run this command together',
  'process_id': '0, 1, …',
}
_FIELDS = {
  'prompt_field': 'where the question stands in a row (default: the usual names)',
  'answer_field': 'where the gold answer stands',
  'id_field': 'where the id stands',
}
COMMANDS = {
  'init': Command(
    'Write a randomly initialised decoder of config.model as a Hugging Face folder.',
    {'tokenizer': 'folder whose tokenizer the decoder gets', 'output': 'folder to write'},
    example='ds-jax init --config=configs/quickstart.py --tokenizer=DIR --output=DIR',
  ),
  'warmstart': Command(
    'Train a tiny decoder on worked solutions of the embedded task; writes WORKDIR/warmstart.',
    {'workdir': _WORKDIR},
    stops_gently=True,
    example='ds-jax warmstart --config=configs/quickstart.py --workdir=runs/quickstart',
  ),
  'train': Command(
    'The main job: evaluate, filter, search, learn, evaluate, report. Continues where it was.',
    {'workdir': _WORKDIR, **_CLUSTER},
    stops_gently=True,
    is_team=True,
    example='ds-jax train --config=configs/quickstart.py --workdir=runs/quickstart',
  ),
  'evaluate': Command(
    'pass@1 of the newest parameters, on the evaluation split or on prepared benchmarks.',
    {
      'workdir': _WORKDIR,
      'checkpoint': 'instead of --config and --workdir: the folder of a run, whose config holds',
      'benchmarks': 'names, e.g. aime2024,math500 (`ds-jax data prepare`), or all',
      'samples': 'per problem: config.evaluate.num_samples',
      'temperature': 'config.evaluate.temperature',
      'top_p': 'config.evaluate.top_p',
      'data_dir': 'folder of prepared benchmarks: config.data.data_dir',
      'output': 'folder of samples and tables (default: one in the workdir)',
      **_CLUSTER,
    },
    stops_gently=True,
    is_team=True,
    example='ds-jax evaluate --checkpoint=runs/deepsearch --benchmarks=aime2024,aime2025 '
    '--samples=32 --temperature=0.6 --top_p=0.95 --data_dir=data',
  ),
  'search': Command(
    'Grow a tree for one problem and print it, or one for each problem of a file.',
    {
      'workdir': _WORKDIR,
      'problem': 'text of the problem',
      'answer': 'its gold answer, if known; not needed for the embedded task',
      'problems': 'instead of --problem: .jsonl, .json, .parquet, .csv; answers may be missing',
      'output': 'with --problems: .jsonl, a line per finished tree; the same command continues',
      'select': 'the answer: first_correct (default; the vote where none is), best_q or vote',
      **_CLUSTER,
    },
    stops_gently=True,
    is_team=True,
    example='ds-jax search --config=configs/quickstart.py --workdir=runs/quickstart '
    '--problem="24 from 3 5 7 2"',
  ),
  'export': Command(
    'Write the newest parameters of a run as a Hugging Face folder, e.g. for vLLM.',
    {
      'checkpoint': _WORKDIR,
      'output': 'folder to write',
      'dtype': 'float32 (default: every bit) or bfloat16',
    },
    needs_config=False,
    example='ds-jax export --checkpoint=runs/quickstart --output=DIR --dtype=bfloat16',
  ),
  'data prepare': Command(
    'Build a training set or a benchmark once, from a file you have, for tfds:NAME.',
    {
      'from': '.jsonl, .json, .parquet, .csv, or a pattern of such files',
      'data_dir': 'folder or gs://… for prepared sets; --config.data.data_dir reads them',
      'benchmark': 'aime2024, aime2025, amc2023, math500, minerva_math or olympiadbench',
      'name': 'of a training set (default: deepmath103k)',
      **_FIELDS,
    },
    needs_config=False,
    example='ds-jax data prepare --benchmark=aime2025 --from=aime2025.jsonl --data_dir=data',
  ),
  'data describe': Command(
    'Print what a source holds: counts, answer types, prompt lengths, flawed rows.',
    {
      'source': 'as in config.data.source, e.g. file:PATH or tfds:deepmath103k',
      'data_dir': 'folder or gs://… of prepared sets',
      'tokenizer': 'folder or hub name; counts prompt tokens',
      'max_problems': 'rows to read; of gym:NAME, to generate',
      **_FIELDS,
    },
    needs_config=False,
    example='ds-jax data describe --source=tfds:deepmath103k --data_dir=data',
  ),
  'grade': Command(
    'Verdicts on a file of golds and predictions; accuracy where it says what is right.',
    {
      'file': 'rows with gold, prediction and, if known, equivalent; --file= may be left out',
      'mode': 'math (default), released (the released grader, defects included), or a verifier',
      'output': '.jsonl of verdicts, which the same command continues (default: beside FILE)',
      'workers': 'processes (default: 2)',
    },
    needs_config=False,
    stops_gently=True,
    positional='file',
    example='ds-jax grade answers.jsonl --mode=math',
  ),
  'plan': Command(
    'Tell whether a run fits a slice and how fast it can be: compiles for it, no TPU or GPU '
    'needed.',
    {
      'topology': "TPU slice, e.g. v5e:4x4 (needs libtpu), or GPUs, e.g. h200:8 (needs jax's "
      'CUDA plugin); several flags: several slices; default: what is here',
      'meshes': "'config' (default), or 'all': every sensible mesh of the slice",
    },
    repeated=('topology',),
    example='ds-jax plan --config=configs/deepsearch_1_5b.py --topology=v5p:2x2x1',
  ),
  'report': Command(
    'Write report.html and report.png of a run.',
    {'workdir': _WORKDIR},
    needs_config=False,
    example='ds-jax report --workdir=runs/quickstart',
  ),
}

EXIT_CODES = """exit codes
  0 done · 1 a defect of ours · 2 bad input · 42 saved after SIGTERM · 130 saved after Ctrl-C
  74 could not write (disk full); the earlier checkpoint is good · 134 lost a peer process
  of plan: 0 fits · 3 does not fit · 4 does not compile"""
