"""`ds-jax search`: files of problems, answers of trees, what is refused, how it goes on."""

from __future__ import annotations

import dataclasses
import errno
import json
import math

import pytest

from ds_jax.cli import main
from ds_jax.evaluate import answers
from ds_jax.run import questions, tree_pages
from ds_jax.run.durable import LineFile
from ds_jax.run.engines import open_engines
from ds_jax.run.searching import search_file
from ds_jax.run.stopping import ExitCode, Stopped
from ds_jax.testing import tiny_run
from ds_jax.testing.tolerance import tolerance

VERIFY = dict(verifier='countdown', num_workers=1)
QUESTIONS = ['11 from 2 3 5', '10 from 2 3 5', '6 from 1 2 3', '4 from 1 1 2']


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  root = tmp_path_factory.mktemp('search')
  return tiny_run.config_file(root, verify=VERIFY), tiny_run.warmstart(
    root / 'run', tiny_run.config(verify=VERIFY)
  )


def run(capsys, warm, *argv):
  code = main(
    ['search', f'--config={warm[0]}', f'--workdir={warm[1].root}', '--json', *map(str, argv)]
  )
  captured = capsys.readouterr()
  last = captured.out.splitlines()[-1:] or ['{}']
  return code, json.loads(last[0]) if code == 0 else {}, captured.out, captured.err


def write(path, *rows):
  path.write_text(''.join((r if isinstance(r, str) else json.dumps(r)) + '\n' for r in rows))
  return path


@pytest.fixture(scope='module')
def searched(warm, tmp_path_factory):
  """One file, searched once: the output and the summary."""
  folder = tmp_path_factory.mktemp('searched')
  problems = write(folder / 'problems.jsonl', *({'problem': q} for q in QUESTIONS))
  output = folder / 'trees.jsonl'
  session = tiny_run.session(warm[1], tiny_run.config(verify=VERIFY))
  found, text = search_file(session, problems=str(problems), output=str(output), select='vote')
  return problems, output, found, text


def rows_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def without_clock(row):
  table = {k: v for k, v in row['table'].items() if not k.startswith('time')}
  return row | {'table': table}


def test_every_problem_gets_a_line_and_the_table_is_whole(searched):
  _, output, found, text = searched
  rows = rows_of(output)
  assert sorted(row['question'] for row in rows) == sorted(QUESTIONS)
  assert found['num_problems'] == found['num_graded'] == len(QUESTIONS)
  for column in (
    'search_depth',
    'trajectory_entropy',
    'trajectory_reward',
    'iterations',
    'time_per_iteration',
    'time_per_tree',
  ):
    values = [row['table'][column] for row in rows]
    assert math.isclose(found['table'][column]['mean'], sum(values) / len(values))
    assert found['table'][column]['deviation'] >= 0
    assert column.replace('_', ' ') in text
  assert 1 <= found['table']['search_depth']['mean'] <= 2
  num_ends = sum(node['is_terminal'] for row in rows for node in row['tree']['nodes'])
  assert num_ends == sum(row['num_ends'] for row in rows)
  assert found['search/cut_share'] == sum(row['num_cut'] for row in rows) / num_ends
  assert 'U/x by depth' in text and 'vote' in text
  for row in rows:
    assert row['selected'] == row['answers']['vote']
    assert row['tree']['nodes'][0]['parent'] is None


def test_u_over_x_is_told_in_tokens_and_time_and_by_what_was_solved_before(
  capsys, warm, searched, tmp_path
):
  """The lines of an earlier search are the problems, as they are but for who was solved."""
  rows = rows_of(searched[1])
  rows = [row | {'is_solved': bool(i % 2)} for i, row in enumerate(rows)]
  problems, output = write(tmp_path / 'problems.jsonl', *rows), tmp_path / 'trees.jsonl'
  argv = f'--problems={problems}', '--config.data.answer_field=gold'
  code, _, _, err = run(capsys, warm, *argv, f'--output={output}')
  assert code == 0, err
  before = {row['id']: row['is_solved'] for row in rows}
  rows = rows_of(output)
  assert {row['id']: row['was_solved'] for row in rows} == before
  for row in rows:
    ((root, below), tokens) = row['pairs'], row['tokens_left']
    assert len(tokens) == 2 and (root > 0) == (tokens[0] > 0) and (below > 0) == (tokens[1] > 0)

  # What the pairs come to, of numbers that are known: at the root 40 tokens are left, below 10.
  counts = dict(pairs=[10, 4], disagreements=[4, 1], tokens_left=[400, 40])
  for row in rows:
    row |= counts if row['was_solved'] else counts | {'disagreements': [4, 2]}
  known = write(tmp_path / 'known.jsonl', *rows)
  code, summary, text, err = run(capsys, warm, *argv, f'--output={known}')
  assert code == 0 and '4 of 4 trees are there already' in err
  ratio = lambda disagreements: disagreements / 4 / (4 / 10) / (10 / 40)
  assert math.isclose(summary['u_over_x']['1'], ratio(1.5))
  assert math.isclose(summary['solved_u_over_x']['1'], ratio(1))
  assert math.isclose(summary['unsolved_u_over_x']['1'], ratio(2))
  assert ratio(1) <= summary['u_over_x_low']['1'] < ratio(1.5) < summary['u_over_x_high']['1']
  assert math.isclose(summary['solved_u_over_x_low']['1'], ratio(1))  # both trees agree
  assert 0 < summary['u_over_x_time']['1'] != summary['u_over_x']['1']
  assert 'unsolved before: 28 pairs' in text and 'solved before: 28 pairs' in text
  assert f'depth 1: in tokens {ratio(1.5):.2f} [' in text and 'in predicted time' in text

  # Lines of an older version do not tell the tokens: x is the share of segments, time unknown.
  for row in rows:
    del row['tokens_left'], row['was_solved']
  older = write(tmp_path / 'older.jsonl', *rows)
  code, summary, text, err = run(capsys, warm, *argv, f'--output={older}')
  assert code == 0 and math.isclose(summary['u_over_x']['1'], 1.5 / 4 / (4 / 10) / 0.5)
  assert 'u_over_x_time' not in summary and 'predicted time' not in text


def test_a_finished_file_is_not_searched_again(capsys, warm, searched):
  problems, output, found, _ = searched
  before = output.read_bytes()
  code, summary, _, err = run(
    capsys, warm, f'--problems={problems}', f'--output={output}', '--select=vote'
  )
  assert code == 0 and output.read_bytes() == before and '4 of 4 trees are there already' in err
  assert 'Compiling' not in err
  assert summary['table'] == found['table']


def test_a_killed_search_goes_on_with_the_same_trees(capsys, warm, searched, tmp_path):
  problems, output, _, _ = searched
  lines = output.read_bytes().splitlines(keepends=True)
  killed = tmp_path / 'trees.jsonl'
  killed.write_bytes(b''.join(lines[:2]) + lines[2][:60])
  code, _, _, err = run(
    capsys, warm, f'--problems={problems}', f'--output={killed}', '--select=vote'
  )
  assert code == 0 and '2 of 4 trees are there already' in err
  by_id = lambda path: {row['id']: without_clock(row) for row in rows_of(path)}
  assert by_id(killed) == by_id(output)


def test_an_asked_stop_keeps_finished_trees(warm, tmp_path):

  problems = write(
    tmp_path / 'problems.jsonl', *({'problem': f'{n} from 1 2 3'} for n in range(1, 25))
  )
  output = tmp_path / 'trees.jsonl'
  config = tiny_run.config(verify=VERIFY, search=dict(num_slots=1, replay_lanes=1))
  done = lambda: output.exists() and output.read_bytes().count(b'\n') >= 1
  with pytest.raises(Stopped):
    session = tiny_run.session(warm[1], config, done)
    search_file(session, problems=str(problems), output=str(output), select='vote')
  assert 1 <= len(rows_of(output)) < 24


def test_broken_rows_are_skipped_counted_and_named(capsys, warm, tmp_path):
  problems = write(
    tmp_path / 'problems.jsonl',
    '{"problem": ',
    {'problem': '11 of 2 3 5'},
    {'problem': '11 from 2 3 5'},
    {'problem': '11 from 2 3 5' + 5 * ' from'},
    {'problem': 'from 2 3 5'},
    {'question': ''},
  )
  code, summary, _, err = run(
    capsys, warm, f'--problems={problems}', f'--output={tmp_path / "out.jsonl"}'
  )
  assert code == 0 and summary['num_problems'] == 1 and summary['num_skipped'] == 5
  for words in (
    '1: not JSON',
    "2: the model has no token for 'of'",
    '4: the prompt has',
    '5: Expected a countdown answer',
    '6: ',
  ):
    assert words in err, err


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--problem=11 from 2 3 x7'], "no token for 'x7'"),
    (['--problem= '], '--problem is empty'),
    (['--problem=11 from'], 'Expected a countdown answer'),
    (['--problem=11 from 2 3 5', '--problems=x'], 'Give the one or the others'),
    (['--problems=/nowhere.jsonl', '--output=x'], 'does not exist'),
    (['--problems={problems}'], 'Missing --output'),
    (['--problems={problems}', '--output={foreign}'], 'is no result of this command'),
    (['--problems={problems}', '--output={unended}'], 'is no result of this command'),
    (['--problems={problems}', '--output={output}', '--config.seed=5'], 'other settings'),
    (['--problem=11 from 2 3 5', '--select=votes'], "Did you mean 'vote'?"),
    (['--problem=11 from 2 3 5', '--html=tree.txt'], 'ends in .html'),
    (['--problem=11 from 2 3 5', '--html={notes}'], 'is no page of trees'),
    (['--problem=11 from 2 3 5', '--html={folder}'], 'is a folder; name a file for --html'),
    (['--problem=11 from 2 3 5', '--html=.html'], 'ends in .html'),
    (['--problems={problems}', '--output={page}', '--html={page}'], 'a file of its own'),
    (['--problems={problems}', '--output={output}', '--html={site}.html'], 'is no page of trees'),
    (['--problems={problems}', '--output={output}', '--html={unended}.html'], 'stand there'),
    (['--problems={problems}', '--output={output}', '--html={notes}'], 'is no page of trees'),
  ],
)
def test_bad_input_is_named_before_any_work(capsys, warm, searched, tmp_path, argv, words):
  problems, output, _, _ = searched
  foreign = write(tmp_path / 'notes.txt', 'notes of mine')
  unended = tmp_path / 'unended'
  unended.write_text('notes of mine')
  notes = write(tmp_path / 'notes.html', '<html>notes of mine')
  folder = tmp_path / 'folder.html'
  folder.mkdir()
  before = [path.read_bytes() for path in (output, foreign, unended, notes)]
  names = dict(problems=problems, output=output, foreign=foreign, unended=unended)
  names |= dict(notes=notes, folder=folder, page=tmp_path / 'page.html', site=tmp_path / 'site')
  names['site'].mkdir()
  write(names['site'] / 'index.html', '<html>pages of mine')
  code, _, _, err = run(capsys, warm, *(a.format(**names) for a in argv))
  assert code == 2 and words in err and 'Traceback' not in err and 'Compiling' not in err
  assert [path.read_bytes() for path in (output, foreign, unended, notes)] == before


def test_a_page_of_the_tree(capsys, warm, tmp_path):
  page = tmp_path / 'new folder' / 'tree.html'
  code, summary, out, err = run(capsys, warm, '--problem=11 from 2 3 5', f'--html={page}')
  assert code == 0 and summary['html'] == str(page) and f'Trees to look at: {page}' in err
  text = page.read_text()
  for node in summary['tree']['nodes']:
    assert f'id="tree-n{node["id"]}"' in text
  assert '11 from 2 3 5' in text and text.endswith('</html>\n')
  run(capsys, warm, '--problem=10 from 2 3 5', f'--html={page}')  # replaces ours
  assert '11 from 2 3 5' not in page.read_text()


def test_pages_of_a_file_are_made_of_all_its_lines(capsys, warm, searched, tmp_path):
  """Nothing is searched again for them; an overview links to a page for each problem."""
  problems, output, _, _ = searched
  before = output.read_bytes()
  page = tmp_path / 'a & b.html'
  argv = [f'--problems={problems}', f'--output={output}', '--select=vote', f'--html={page}']
  code, summary, _, err = run(capsys, warm, *argv)
  assert code == 0 and summary['html'] == str(page) and output.read_bytes() == before
  assert f'{len(QUESTIONS)} of {len(QUESTIONS)} trees are there already' in err
  names = [f'{i + 1}.html' for i in range(len(QUESTIONS))]
  assert sorted(path.name for path in (tmp_path / 'a & b').iterdir()) == sorted(names)
  overview = page.read_text()
  for question, name in zip(QUESTIONS, names, strict=True):
    assert f'href="a%20%26%20b/{name}"' in overview
    text = (tmp_path / 'a & b' / name).read_text()
    assert question in text and 'href="../a%20%26%20b.html"' in text


def test_a_full_disk_under_a_page_does_not_lose_the_tree(capsys, warm, tmp_path, monkeypatch):
  def fail(path, content):
    raise OSError(errno.ENOSPC, 'No space left on device', str(path))

  monkeypatch.setattr(tree_pages, 'write_atomically', fail)
  page = tmp_path / 'tree.html'
  code, _, out, err = run(capsys, warm, '--problem=11 from 2 3 5', f'--html={page}')
  summary = json.loads(out.splitlines()[-1])
  assert code == ExitCode.CANNOT_WRITE and summary['status'] == 'cannot_write'
  assert len(summary['tree']['nodes']) > 1 and 'The disk is full' in err and '0 root' in out


def test_an_output_in_use_is_refused(capsys, warm, searched, tmp_path):
  with LineFile(tmp_path / 'out.jsonl', 'run') as file:
    file.append({'id': 'a'})
    code, _, _, err = run(capsys, warm, f'--problems={searched[0]}', f'--output={file.path}')
    assert code == 2 and 'written by another process' in err


def test_a_question_of_the_command_line_is_asked_as_the_run_asks_its_own(warm, tmp_path):
  config = tiny_run.config(verify=VERIFY, data=dict(instruction='from 7'))
  with open_engines(tiny_run.session(warm[1], config)) as engines:
    asked = questions.read_question(engines, '11 from 2 3 5', None)
    assert (asked.prompt, asked.answer) == ('11 from 2 3 5 from 7', '11 from 2 3 5')
    row = {'problem': '11 from 2 3 5', 'answer': '11 from 2 3 5'}
    problems = write(tmp_path / 'a.jsonl', row)
    (of_file,) = questions.read_questions(engines, str(problems)).problems
    assert of_file.prompt == asked.prompt


def test_without_an_answer_nothing_is_graded_and_the_vote_decides(capsys, warm, tmp_path):
  problems = write(
    tmp_path / 'problems.jsonl',
    {'id': 'q', 'problem': '11 from 2 3 5'},
    {'id': 'g', 'problem': '10 from 2 3 5', 'answer': '1'},
  )
  code, summary, out, _ = run(
    capsys,
    warm,
    f'--problems={problems}',
    f'--output={tmp_path / "out.jsonl"}',
    '--config.verify.verifier=exact',
  )
  open_, graded = sorted(rows_of(tmp_path / 'out.jsonl'), key=lambda row: row['gold'] or '')
  assert code == 0 and summary['num_graded'] == 1 and open_['gold'] is None
  assert open_['is_solved'] is None and open_['selected']['is_correct'] is None
  assert open_['selected'] == open_['answers']['vote']
  assert {n['verdict'] for n in open_['tree']['nodes'] if n['is_terminal']} == {'ungraded'}
  assert {n['reward'] for n in open_['tree']['nodes'] if n['is_terminal']} == {0.0}
  assert len(open_['tree']['collected']) > 0 and graded['is_solved'] is not None


def end(answer, is_correct=False, q=0.0, logprob=-1.0, node=1):
  return answers.End(node, f'so {answer}', answer, is_correct, q, logprob)


def test_the_vote_counts_answers_not_spellings():
  ends = [end('7', logprob=-0.1), end(r'\frac{1}{2}', node=2), end('0.5', logprob=-0.5, node=3)]
  assert answers.vote(ends).node == 3
  assert answers.vote([end('7', node=4), end('8', logprob=-0.2, node=5)]).node == 5
  assert answers.vote([]) is None


def test_best_q_and_first_correct():
  ends = [end('7', q=0.1), end('8', q=0.4, logprob=-2, node=2), end('9', q=0.4, node=3)]
  assert answers.best_q(ends).node == 3 and answers.best_q([]) is None
  right = [*ends, end('5', True, node=4), end('5', True, node=5)]
  assert answers.first_correct(right).node == 4
  assert answers.first_correct(ends).node == answers.vote(ends).node


def test_hostile_answers_are_compared_without_being_read():
  tower = '9' * 10 + '**' + '9' * 10
  assert answers.compared_form(tower) == answers.compared_form(f' {tower} ')
  assert answers.compared_form('(' * 9999) == '(' * 9999


@pytest.mark.long
def test_path_quality_and_ends_of_a_tree(warm):
  from ds_jax.testing import tiny as fakes

  tree = next(iter(fakes.grow(fakes.make_engine(), fakes.make_jobs(1))[0].values()))
  decode = lambda tokens: ' '.join(map(str, tokens.tolist()))
  ends = answers.find_ends(tree, decode, answers.read_whole)
  assert [e.node for e in ends][: len(tree.collected)] == tree.collected.tolist()
  assert len(ends) == int(tree.is_terminal.sum())
  node = int(tree.collected[0])
  path = tree.path(node)[1:]
  quality = sum(tree.value_sum[i] / tree.visit_count[i] for i in path) / len(path)
  assert math.isclose(ends[0].q, quality, rel_tol=tolerance('float32', 8 * len(path)))
  verdicts = list(tree.verdict)
  verdicts[node] = 'degenerate'
  masked = dataclasses.replace(tree, verdict=tuple(verdicts))
  assert node not in [e.node for e in answers.find_ends(masked, decode, answers.read_whole)]
