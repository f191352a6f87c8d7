r"""Responses that want a reward without an answer: none pays, and honest neighbours do.

HEDGES are written around golds: more answers than one, a gold among other words, boxes that are
thoughts, empty or open. UNIVERSAL answers say nothing and could be meant for any gold. DISGUISED
answers look like the gold, or hold it in a statement that is false. Over 700 rows in all.
"""

from __future__ import annotations

import pytest

from ds_jax.types import Verdict
from ds_jax.verify import grade_math

GOLDS = (
  '5',
  '0',
  '-3',
  r'\frac{1}{2}',
  r'\sqrt{2}',
  '10^{-50}',
  'x^2+1',
  '(1,2)',
  '[0,1)',
  'x>3',
  'y=2x+3',
  r'\{1,2\}',
  '1, 2',
  r'45^\circ',
  r'5\text{ cm}',
  r'\text{even}',
  'B',
  'True',
  r'\begin{pmatrix}1\\2\end{pmatrix}',
  r'x \equiv 3 \pmod 7',
)

# `@` is the gold; 77 and 78 are in none.
HEDGES = (
  r'\boxed{@ \text{ or } 77}',
  r'\boxed{77 \text{ or } @}',
  r'\boxed{@, 77}',
  r'\boxed{@; 77}',
  r'\boxed{\text{either } @ \text{ or } 77}',
  r'\boxed{@ \text{ and maybe } 77}',
  r'\boxed{@ \text{ is wrong}}',
  r'\boxed{@ \text{ (or possibly 77)}}',
  r'\boxed{\text{not } @}',
  r'\boxed{\text{The answer is not } @}',
  r'\boxed{@ \neq 77}',
  r'\boxed{@ \ ?\ 77}',
  r'\boxed{@ \to 77}',
  r'\boxed{@ \Rightarrow 77}',
  r'\boxed{@} \boxed{77}',
  r'\boxed{@}, \boxed{77}',
  r'\boxed{77} or \boxed{@}',
  r'\boxed{77} and \boxed{@}',
  r'First I thought \boxed{@}. But it is \boxed{77}.',
  r'<think>\boxed{@}</think> I am done.',
  r'<think>\boxed{@}</think> So \boxed{77}.',
  r'<think> It must be \boxed{@}',
  r'</think><think>\boxed{@}',
  r'\boxed{77} is better than @.',
  r'The answer is @.',
  r'$@$',
  r'\boxed{@',
  r'\boxed{} @',
  r'@ \boxed{}',
  r'\boxed 7@',
  r'boxed{@}',
  r'\boxedd{@}',
  r'\boxed{\{@, 77, 78\}}',
  r'\boxed{\text{one of } @, 77}',
  r'\boxed{@ = 77}',
  r'\boxed{77 = 78 = @}',
)

UNIVERSAL = (
  '0/0',
  r'\frac{0}{0}',
  '0^0',
  r'\infty - \infty',
  'x=x',
  '7=7',
  '1=1',
  r'\mathbb{R}',
  r'\mathbb{C}',
  r'(-\infty,\infty)',
  r'\{x \mid x = x\}',
  r'\text{any}',
  r'\text{any number}',
  r'\text{anything}',
  r'\text{the answer}',
  r'\text{see above}',
  r'\text{correct}',
  r'\text{gold}',
  'nan',
  'None',
  'null',
  'inf',
  'x',
  'a',
  'n',
  'f(x)',
  r'\pm\infty',
  r'\ldots',
  r'\cdots',
  '*',
  '.*',
  '?',
  '=',
  ',',
  '()',
  r'\{\}',
  r'\emptyset',
  r'\text{}',
  r'\,',
  '{}',
  '{{}}',
  '$$',
  r'\$',
  '%',
  r'\forall x',
  r'\exists x',
  r'x \in \mathbb{R}',
  r'\sum_{k} a_k',
  r'\lim_{x\to 0} f(x)',
  '9999999999999999999999999!',
  '__eq__',
  'lambda self, other: 1',
  'A, B, C, D, E',
  'ABCDE',
  r'\text{A or B or C or D}',
  r'\text{Yes/No}',
  r'\text{True or False}',
  r'\text{positive or negative}',
)

DISGUISED = (
  ('5', '\u0455'),  # a Cyrillic letter that is no digit
  ('x+1', '\u0445+1'),
  ('a', '\u0430'),
  ('A', '\u0391'),  # Alpha
  ('B', '\u0412'),
  ('o', '0'),
  ('0', 'O'),
  ('1', 'l'),
  ('1', 'I'),
  ('5', 'S'),
  ('5', '5\u030c7'),
  ('12', '1\u2060, 2'),
  ('-5', '\u2e3a 5'),
  ('5', '5 = 6'),
  ('5', '4+2 = 5'),
  ('5', r'x = 4 = 5'),
  ('5', r'\sqrt{24} = 5'),
  ('5', r'\frac{51}{10} \approx 5.3'),
  ('5', r'5 \cdot 1^{-}'),
  ('5', r'5\text{i}'),
  ('5', r'5\mathrm{k}'),
  ('5', r'5_{}^{}7'),
  ('5', r'5^{1^{0}} + x - y'),
  ('5', r'\text{5 or 6 or 7}'),
  ('5', '4, 5, 6'),
  ('5', r'\{4,5,6\}'),
  ('5', '[4, 6]'),
  ('5', '4 < x < 6'),
  ('5', r'\geq 5'),
  ('5', r'5 \pm 1'),
  ('5', '5?6'),
  ('5', '5!'),
  ('5', '5.0000000001'),
  ('5', '4.9999999999'),
  ('5', '5 + 10^{-300}'),
  ('5', r'5 + \frac{1}{10^{1000}}'),
  ('5', r'5 + e^{-10^{9}}'),
  ('5', r'5 \cdot x^0 + 0 \cdot y + z - 2z'),
  ('0', r'10^{-1000}'),
  ('0', r'e^{-10^{6}}'),
  ('0', r'\frac{1}{10^{10^{10}}}'),
  (r'\pi', '3.14'),
  (r'\pi', r'\frac{355}{113}'),
  (r'\pi', '3.1415926535897931'),
  (r'\sqrt{2}', '1.41'),
  (r'\frac{1}{3}', '0.3333333334'),
  (r'\frac{1}{3}', '0.3'),
  (r'\lfloor x \rfloor', r'\lfloor x + 10^{-12} \rfloor'),
  (r'|x-1000|', r'1000-x'),
  (r'|x^3-10^9|', r'10^9-x^3'),
  ('x', r'\sqrt{x^2}'),
  ('x', r'x + 10^{-40}'),
  ('x', r'\arcsin(\sin x)'),
  (r'n!', r'n!+\lfloor \frac{n}{10^6} \rfloor'),
  ('(1,2)', '1,2'),
  ('(1,2)', r'\{1,2\}'),
  ('(1,2)', '(2,1)'),
  ('(1,2)', '[1,2]'),
  ('1, 2', '12'),
  ('1, 2', '(1,2)'),
  ('1, 200', '1200'),
  (r'5\text{ m}', r'5\text{ ms}'),
  (r'5\text{ m}', r'5\text{ m or cm}'),
  (r'\$5', '€5'),
  (r'5\%', '500'),
  ('1011_2', '1011_3'),
  ('x_1', 'x_2'),
  ('f(x)', 'f(y)'),
  (r'\gcd(a,b)', r'\gcd(a,b,c)'),
  ('x=1, y=2', 'x=2, y=1'),
  (r'\text{Alice}', r'\text{Alice or Bob}'),
  (r'\text{Alice}', r'\text{Alice, Bob}'),
  (r'\text{cat}', r'\text{act}'),
  ('B', 'A, B'),
  ('B', r'\text{(A) or (B)}'),
  ('B', 'AB'),
  (r'\textbf{(B)}\ 12', r'\textbf{(B)}\ 13'),
  ('True', r'\text{not False or False}'),
  ('3:30', '330'),
  (r'3:30\text{ p.m.}', r'3:30\text{ a.m.}'),
)

HONEST = (
  ('5', r'\boxed{5}. As asked, the answer is within \boxed{}.'),
  ('5', r'<think>maybe \boxed{77}</think> It is \boxed{5}.'),
  ('5', r'maybe \boxed{77}</think> It is \boxed{5}.'),
  ('5', r'\boxed{77}? No: \boxed{5}.'),
  ('5', r'\boxed{5} and so \boxed{5}.'),
  ('5', r'\boxed{\boxed{5}}'),
  ('5', r'\boxed 5'),
  ('5', r'$\boxed5$'),
  ('1, 2', r'The roots are $\boxed{1}$ and $\boxed{2}$.'),
  ('2, 1', r'\boxed{1}, \boxed{2}'),
  ('5', r'\boxed{x = \sqrt{25} = 5}'),
)


def pays(gold: str, response: str) -> bool:
  return grade_math.verify(gold, response) is Verdict.CORRECT


@pytest.mark.parametrize('hedge', HEDGES)
def test_hedges_do_not_pay(hedge):
  assert [gold for gold in GOLDS if pays(gold, hedge.replace('@', gold))] == []


@pytest.mark.parametrize('answer', UNIVERSAL)
def test_universal_answers_do_not_pay(answer):
  assert [gold for gold in GOLDS if pays(gold, rf'\boxed{{{answer}}}')] == []


@pytest.mark.parametrize('gold, answer', DISGUISED)
def test_disguised_answers_do_not_pay(gold, answer):
  assert not pays(gold, rf'\boxed{{{answer}}}')


@pytest.mark.parametrize('gold, response', HONEST)
def test_honest_answers_pay(gold, response):
  assert pays(gold, response)


def test_a_gold_pays_in_its_own_words():
  assert [gold for gold in GOLDS if not pays(gold, rf'So \boxed{{{gold}}}.')] == []
