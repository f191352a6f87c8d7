"""Hostile answers against the math verifier: nothing runs, hangs, fills memory or stops the pool.

The 71 of shared/data/equivalence/peer_robustness.jsonl, which holds names and no texts, written
again; and 500 that hypothesis makes of fragments.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from ds_jax.config import VerifyConfig
from ds_jax.types import Verdict
from ds_jax.verify.pool import VerifierPool

CPU_SECONDS = 1.0  # per answer
WALL_SECONDS = 8.0  # for three answers: two deadlines, and the CPU is shared
WORKER_MB = 1500  # resident; the address space is limited to 4096

# Names as in the file. Texts between braces are boxed; none equals x+1.
BLOW_UPS = {
  'tower 9^9^9^9': '9^{9^{9^9}}',
  'tower 9^9^9': '9^{9^9}',
  'MV issue #65 tower': '2^{3^{4^{5^{6^7}}}}',
  '10^(10^10)': '10^{10^{10}}',
  '10^(-10^9)': '10^{-10^9}',
  '2^{2^{100}} vs x+1': '2^{2^{100}}',
  'python tower 9**9**9**9': '9**9**9**9',
  '(10^8)!': '(10^8)!',
  '((9!)!)!': '((9!)!)!',
  '100000000!': '100000000!',
  'binom(10^9,5e8)': r'\binom{10^9}{5 \cdot 10^8}',
  'geometric series deg 800': r'\sum_{n=0}^{800} x^n',
  '(x+y+z)^500 vs 1': '(x+y+z)^{500}',
  '(x+1)^{5000}-expanded 2': '(x+1)^{5000}-(x+1)^{4999}(x+1)+2',
  'sum k^k to 1e9': r'\sum_{k=1}^{10^9} k^k',
  'prod n to 1e8': r'\prod_{n=1}^{100000000} n',
  'int e^{e^{e^x}}': r'\int e^{e^{e^x}} dx',
  'sin(10^(10^8))': r'\sin(10^{10^8})',
  'log tower #63': r'\log(' * 12 + '9' + ')' * 12,
  'sqrt chain 60': r'\sqrt{' * 60 + '2' + '}' * 60,
  '1e999999999': '1e999999999',
  'products of powers': '(x+1)^{59}(y+2)^{59}(z+3)^{59}',
}
LONG_AND_DEEP = {
  '1MB digits': '9' * 10**6,
  '10k nested braces': '{' * 10_000 + '1' + '}' * 10_000,
  '10k nested parens': '(' * 10_000 + '1' + ')' * 10_000,
  '2k nested frac': r'\frac{1}{' * 2000 + '2' + '}' * 2000,
  '2k nested sqrt': r'\sqrt{' * 2000 + '2' + '}' * 2000,
  '5k nested boxed': r'\boxed{' * 5000 + '1' + '}' * 5000,
  '5k open braces': '{' * 5000,
  '1MB x+x+..': 'x+' * 500_000 + 'x',
  '100kB x+x+..': 'x+' * 50_000 + 'x',
  '1MB letters': 'a' * 10**6,
  '1MB spaces': ' ' * 10**6,
  '1MB backslashes': '\\' * 10**6,
  '"answer is " x 50k': 'answer is ' * 50_000,
  '"$" x 100k': '$' * 100_000,
  '"1," x 100k': '1,' * 100_000,
  '3000-elem set, permuted': r'\{' + ','.join(map(str, range(3000, 0, -1))) + r'\}',
  '80x80 matrix': (
    r'\begin{pmatrix}'
    + r'\\'.join(' & '.join(f'{i * j}' for j in range(80)) for i in range(80))
    + r'\end{pmatrix}'
  ),
}
ODD = {
  'arabic digit': '\u0663',
  'fullwidth digits': '\uff11\uff12',
  'circled 2': '\u2461',
  'vulgar half': '\u00bd',
  'superscript x²': 'x\u00b2',
  'unicode minus −5': '\u22125',
  '√2 glyph': '\u221a2',
  'null byte': '1\0' + '2',
  'lone surrogate': '\ud800',
  'RTL override': '\u202e12',
  'unbalanced \\frac{1}{2': r'\frac{1}{2',
  '}}}{{{': '}}}{{{',
  '\\frac alone': r'\frac',
  '\\left( only': r'\left(',
  'nan': 'nan',
  'NaN = NaN': 'NaN = NaN',
  '\\infty vs inf': r'\infty',
  '\\infty vs -\\infty': r'-\infty',
  '1/0': '1/0',
  '0/0 vs 0/0': '0/0',
  'empty': '',
  'empty vs empty': '',
  'space': ' ',
  'None': 'None',
  'True vs 1': 'True',
}


def code(canary: str) -> dict[str, str]:
  """Answers that would touch the file `canary` or end the process if they were evaluated."""
  run = f"__import__('os').system('touch {canary}')"
  numbers = ','.join(map(str, run.encode()))
  characters = '+'.join(f'chr({ord(c)})' for c in run)
  return {
    '__import__ payload': run,
    'nested eval string': f'eval("{run}")',
    'N("payload")': f'N("{run}")',
    'chr() payload, no quotes': f'eval({characters})',
    'open() write': f"open('{canary}','w')",
    'subclasses walk': '().__class__.__base__.__subclasses__()',
    'latex text payload': rf'\text{{{run}}}',
    'exit()': 'exit()',
    'shell': f'$(touch {canary})',
    'bytes': f'eval(bytes([{numbers}]))',
  }


HOSTILE = {**BLOW_UPS, **LONG_AND_DEEP, **ODD}


@pytest.fixture(scope='module')
def canary(tmp_path_factory) -> Path:
  return tmp_path_factory.mktemp('hostile') / 'canary'


@pytest.fixture(scope='module')
def pool():
  config = VerifyConfig(verifier='math', cpu_seconds=CPU_SECONDS, num_workers=2)
  with VerifierPool(config) as pool:
    pool.verify([('x^2-1', r'\boxed{(x-1)(x+1)}')])[0].result(timeout=60)  # started
    yield pool


_served = itertools.count(2)


def check(pool: VerifierPool, canary: Path, answer: str) -> list[Verdict]:
  """As prediction, boxed, and as gold; a plain answer behind them is served at once."""
  number, start = next(_served), time.monotonic()
  futures = pool.verify(
    [
      ('x+1', rf'\boxed{{{answer}}}'),
      (answer, r'\boxed{x+1}'),
      (f'1/{number}', rf'\boxed{{\frac{{2}}{{{2 * number}}}}}'),
    ]
  )
  verdicts = [future.result(timeout=60) for future in futures]
  assert time.monotonic() - start < WALL_SECONDS, answer[:60]
  assert verdicts[2] is Verdict.CORRECT
  assert Verdict.ERROR not in verdicts, answer[:60]
  assert not canary.exists(), answer[:60]
  return verdicts[:2]


def resident_mb(pid: int) -> float:
  """The most memory that a process ever held."""
  try:
    status = Path(f'/proc/{pid}/status').read_text()
  except FileNotFoundError:  # replaced meanwhile
    return 0.0
  return int(status.split('VmHWM:')[1].split()[0]) / 1024 if 'VmHWM:' in status else 0.0


def test_the_list_is_that_of_the_shared_data(shared, canary):
  path = shared / 'data' / 'equivalence' / 'peer_robustness.jsonl'
  if not path.is_file():
    pytest.skip(f'no shared data: {path} does not exist')
  names = {json.loads(line)['name'] for line in path.read_text().splitlines()}
  assert len(names) == 71
  assert not names - HOSTILE.keys() - code(str(canary)).keys()


def test_hostile_answers_neither_run_nor_hang(pool, canary):
  for name, answer in (HOSTILE | code(str(canary))).items():
    verdicts = check(pool, canary, answer)
    assert Verdict.CORRECT not in verdicts, name
    assert max(map(resident_mb, pool.worker_pids)) < WORKER_MB, name


def _operations(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
  two = st.tuples(inner, inner)
  form = lambda pattern: lambda parts: pattern.replace('A', parts[0]).replace('B', parts[1])
  patterns = (
    r'\frac{A}{B}',
    'A^{B}',
    'A^B',
    r'\sqrt[A]{B}',
    '(A)!',
    r'\binom{A}{B}',
    'A+B',
    'A-B',
    'AB',
    r'A \cdot B',
    '(A,B)',
    '[A,B)',
    r'\{A,B\}',
    'A=B',
    r'A \le B',
    r'\log_{A}{B}',
    r'\sin(A)',
    r'\sum_{n=A}^{B} n^n',
    r'\prod_{n=A}^{B} n',
    r'\int_{A}^{B} x dx',
    r'\lim_{x \to A} B',
    r'\begin{pmatrix} A & B \\ B & A \end{pmatrix}',
    r'\text{A B}',
    r'A \text{ or } B',
    '|A|',
    r'\left(A\right)',
    r'A \pmod{B}',
    'A**B',
    'A//B',
    'f(A)=B',
    'A:B',
    r'A\%',
    'A, B',
    '{A}',
  )
  return st.tuples(two, st.sampled_from(patterns)).map(lambda drawn: form(drawn[1])(drawn[0]))


_ATOMS = st.one_of(
  st.integers(-(10**12), 10**12).map(str),
  st.sampled_from('xyzn'),
  st.text(max_size=4),
  st.floats(allow_nan=True).map(str),
  st.sampled_from(
    [
      '10^{10^8}',
      '9^9',
      r'\pi',
      'e',
      'i',
      r'\infty',
      r'\sqrt2',
      '0',
      r'\frac',
      '}',
      '{',
      r'\boxed{',
      '\u00bd',
      'lambda: 0',
      '__import__("os")',
      'exit()',
      '()' * 9,
      r'\text{yes}',
      '$',
      '\\',
      '1e99999',
      '0x1F',
      'nan',
      '1_000',
      '99999999!',
    ]
  ),
)


@st.composite
def fuzzed(draw) -> str:
  """A formula, well formed or with a piece cut out or doubled."""
  text = draw(st.recursive(_ATOMS, _operations, max_leaves=12))
  start = draw(st.integers(0, len(text)))
  end = draw(st.integers(start, min(len(text), start + 8)))
  return draw(
    st.sampled_from(
      [text, text[:start] + text[end:], text[:end] + text[start:end] * 3 + text[end:]]
    )
  )


@hypothesis.settings(
  max_examples=500,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(answer=fuzzed())
def test_fuzzed_answers_neither_run_nor_hang(pool, canary, answer):
  check(pool, canary, answer)
  assert max(map(resident_mb, pool.worker_pids), default=0.0) < WORKER_MB
