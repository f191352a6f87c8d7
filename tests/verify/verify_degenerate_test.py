"""Garbled and endlessly repeating responses: what is found, what is left alone, at what cost."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
import time

import pytest

from ds_jax.config import VerifyConfig
from ds_jax.types import Verdict
from ds_jax.verify.degenerate import MAX_TEXT, is_degenerate, is_garbled, is_repeating
from ds_jax.verify.pool import VerifierPool

SHARED = pathlib.Path(__file__).parents[3] / 'shared'

PROOF = (
  'Let $x$ be the number of apples. We are told that $3x + 5 = 26$, so $3x = 21$ and $x = 7$. '
  'To be sure, substitute back: $3 \\cdot 7 + 5 = 26$, which holds. '
)
RECHECK = 'Wait, let me re-check this. The sum of the angles is 180 degrees, so the third is 60. '
PARAGRAPH = (
  'But we still have to rule out the case that $p$ divides $q - 1$. Suppose it does; then there '
  'is an element of order $p$ in the multiplicative group, and its powers form a subgroup H of '
  'that order. The cosets of H partition the group, so p divides q - 1, as supposed. Hence we '
  'cannot conclude yet, and have to look at the case again from another side.\n\n'
)

REPEATING = {
  'one sentence again and again': PROOF + RECHECK * 12,
  'cut in the middle of the loop': PROOF + (RECHECK * 12)[:-31],
  'cut in the middle of a character': PROOF + RECHECK * 9 + 'Wait, let\ufffd',
  'a paragraph': PROOF + PARAGRAPH * 5,
  'one token': PROOF + ' the' * 200,
  'one letter': 'The answer is ' + 'A' * 900,
  'line breaks': PROOF + '\n' * 500,
  'an open formula': PROOF + '$$ x = \\frac{1}{2} + ' + '\\frac{1}{2} + ' * 60,
  'the box itself': PROOF + 'So the answer is \\boxed{7}. ' * 40,
  'closing braces': PROOF + '\\boxed{\\frac{7' + '}' * 400,
  'two lines that alternate': PROOF + 'Case 1: x > 0.\nCase 2: x < 0.\n' * 20,
  'zeros behind the point': 'As a decimal this is 0.1' + '0' * 3000,
  'counting': PROOF + ', '.join(map(str, range(1, 1200))),
  'numbered steps that say nothing': PROOF
  + ''.join(
    f'Step {i}: we add 1 to the previous result and obtain {i + 1}.\n' for i in range(1, 90)
  ),
  'Chinese': '设苹果的数量为 x。' + '我们再检查一遍这个结果是否正确。' * 30,
  'an apology': 'I apologize for the confusion. Let me try again.\n' * 30,
}

GARBLED = {
  'bytes that are no text': PROOF + '\ufffd' * 60 + ' x = 7',
  'controls': PROOF + ''.join(chr(1 + i % 8) for i in range(120)),
  'scripts at random': PROOF
  + (
    'ichert的 utiliser ніч المتحدة 것입니다 forall Ґрунт एक कहानी ไม่มี ответ 関数 את הדבר '
    'lösung ということ नहीं есть كان'
  ),
  'letters run together': PROOF
  + ''.join(random.Random(1).choices('abcdefghijklmnopqrstuvwxyz', k=150)),
  'words without spaces': (
    'thesumoftheanglesisonehundredandeightydegreessothethirdangleissixty'
    'degreesandwearefinishedwiththisproblem'
  ),
  'private code points': 'x = 7 ' + '\ue000\ue123\uf8ff' * 30,
  'unassigned code points': 'x = 7 ' + '\U000e0fff\u0378\u0379' * 30,
  'lone surrogates': 'x = 7 ' + '\ud800\udfff' * 40,
}

SOUND = {
  'a solution': PROOF + 'The answer is \\boxed{7}.',
  'a solution that was cut': PROOF + 'Now consider the second equation, in which the unk',
  'nothing': '',
  'an end at once': ' ',
  'embedded task': '3 + 5 = 8 | 8 7 2 . . 8 * 3 = 24',
  'a re-check or two': PROOF + RECHECK * 3 + 'The answer is \\boxed{60}.',
  'a loop that was left': PROOF + RECHECK * 12 + 'Enough: the third angle is 60. \\boxed{60}',
  'a large number': 'Hence $2^{1000} = ' + str(2**1000) + '$, and its last digit is \\boxed{6}.',
  'a number that was cut': 'Hence $3^{4000} = ' + str(3**4000),
  'a period': 'So $1/7 = 0.' + '142857' * 8 + '\\ldots$, with period 6. \\boxed{6}',
  'a repunit': 'The number 1' + '1' * 120 + ' has 121 digits. \\boxed{121}',
  'a sum of ones': '$' + '1 + ' * 60 + '1 = 61$, so \\boxed{61}.',
  'a row of zeros that was cut': '\\begin{pmatrix} ' + '0 & ' * 30 + '0 \\\\ 1 & ',
  'a matrix': (
    '\\begin{pmatrix}\n'
    + ' \\\\\n'.join(' & '.join('1' if i == j else '0' for j in range(12)) for i in range(12))
    + '\n\\end{pmatrix}'
  ),
  'cases by brute force': PROOF
  + ''.join(
    f'n = {n}: {n}^2 + 1 = {n * n + 1}, '
    + ('prime.\n' if n in (1, 2, 4, 6, 10, 14, 16, 20) else 'not prime.\n')
    for n in range(1, 31)
  ),
  'a list of primes that was cut': 'The primes are 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, '
  '41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101',
  'a table': '| n | n^2 |\n|---|---|\n' + ''.join(f'| {n} | {n * n} |\n' for n in range(30)),
  'a rule across the page': PROOF + '\n' + '-' * 80 + '\n' + PROOF,
  'Chinese with formulas': '设苹果的数量为 $x$，有 $3x + 5 = 26$，因此 $x = 7$。答案：7',
  'Japanese': '角の和は180度なので、残りの角は60度です。答えは「60」となります。カタカナも。',
  'Russian and English': 'Пусть x — число яблок. By the problem 3x + 5 = 26, значит x = 7.',
  'Greek and symbols': '∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−L|<ε, where α+β=γ, 𝔽_p ⊂ ℂ, ℵ₀, ∮ ω ∧ dω, ℏ',
  'three languages': 'The word "Zahl" is число in Russian and 数 in Chinese; all mean number.',
  'a long German word': 'Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz hat 63.',
  'a string problem': 'The string ' + 'ab' * 70 + ' has 140 letters. \\boxed{140}',
  'Thai runs words together': 'ให้ x เป็นจำนวนแอปเปิล ' + 'ผลรวมของมุมทั้งหมดเท่ากับหนึ่งร้อยแปดสิบองศา' * 2,
  'a formula without spaces': '$' + '+'.join(f'x_{{{i}}}y_{{{i}}}' for i in range(40)) + '$',
  'half a character': 'So the answer is 7\ufffd',
  'tabs and line breaks': 'a\tb\r\n' * 10,
}


@pytest.mark.parametrize('name', REPEATING)
def test_loops_are_found(name):
  assert is_repeating(REPEATING[name]) and is_degenerate(REPEATING[name])


@pytest.mark.parametrize('name', GARBLED)
def test_garble_is_found(name):
  assert is_garbled(GARBLED[name]) and is_degenerate(GARBLED[name])


@pytest.mark.parametrize('name', SOUND)
def test_sound_texts_are_left_alone(name):
  assert not is_repeating(SOUND[name]) and not is_garbled(SOUND[name])


@pytest.mark.parametrize('name', SOUND)
def test_a_sound_text_is_found_once_it_repeats(name):
  if len(SOUND[name].strip()) > 60:
    assert is_degenerate(SOUND[name] * max(5, 1500 // len(SOUND[name])))


def test_real_problems_and_answers_are_left_alone():
  if not (SHARED / 'data' / 'benchmarks').is_dir():
    pytest.skip(f'no {SHARED / "data" / "benchmarks"}')
  files = [
    path
    for path in sorted((SHARED / 'data' / 'benchmarks').glob('*.jsonl'))
    if 'meta' not in path.name
  ]
  texts = [json.loads(line)['problem'] for path in files for line in path.read_text().splitlines()]
  assert len(texts) > 1000
  assert [text for text in texts if is_degenerate(text)] == []
  joined = [' '.join(texts[i : i + 8]) for i in range(0, len(texts), 8)]  # as long as responses
  assert [text[:80] for text in joined if is_degenerate(text)] == []


@pytest.mark.parametrize(
  'text',
  [
    'a' * 10**6,
    'ab' * 10**6,
    ('a' * 99 + 'b') * 10**4,
    'é' * 10**6,
    '\ud800' * 10**6,
    '1 ' * 10**6,
    ''.join('a' if bin(i).count('1') % 2 else 'b' for i in range(10**5)),
    ''.join(map(chr, range(0x80, 0x80 + 10**5))),
  ],
  ids=['letter', 'pair', 'near', 'wide', 'surrogate', 'count', 'thue', 'all'],
)
def test_hostile_texts_cost_no_more_than_their_last_characters(text):
  start = time.process_time()
  is_degenerate(text)
  assert time.process_time() - start < 0.5
  assert is_degenerate(text) == is_degenerate(text[-MAX_TEXT:])


def test_the_pool_drops_wrong_texts_alone():
  garbage, items = PROOF + RECHECK * 12, []
  items = [
    ('7', garbage),
    ('7', garbage + '\\boxed{7}'),
    ('7', garbage + '\\boxed{8}'),
    ('60', RECHECK * 12 + '\\boxed{60} ' * 30),
  ]
  config = VerifyConfig(verifier='math', num_workers=1)
  with VerifierPool(config) as pool:
    found = [future.result() for future in pool.verify(items)]
  assert found == [Verdict.DEGENERATE, Verdict.CORRECT, Verdict.WRONG, Verdict.CORRECT]
  with VerifierPool(dataclasses.replace(config, degenerate='keep')) as pool:
    assert pool.verify(items[:1])[0].result() is Verdict.NO_ANSWER
