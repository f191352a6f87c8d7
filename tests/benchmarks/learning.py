"""What pays: arms on tasks over seeds, at equal generated tokens; run by hand, hours.

  python tests/benchmarks/learning.py run    --task=chain --arms=dapo,tuned --seeds=1,2
  python tests/benchmarks/learning.py run    --task=chain --arms='tuned+rate=*' --seeds=100
  python tests/benchmarks/learning.py table  --task=chain --baselines=dapo,tuned
  python tests/benchmarks/learning.py figure --task=chain --arms=dapo,tuned
  python tests/benchmarks/learning.py curve  --task=chain --arms=dapo > dapo.json
  python tests/benchmarks/learning.py tuning --task=chain
  python tests/benchmarks/learning.py list

An arm is a set of overrides of the task's config, and arms to tune are one with a single field
changed (learning_arms.py declares both). Each run goes on from the task's warm start until it has
generated the task's tokens; evaluations do not count. Runs are pinned to a core each. A run that
was interrupted goes on with the same command, and one whose end is in learning/points.jsonl is not
made again. Seeds below 100 test, others tune.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import pathlib

import learning_figure
import learning_points
import learning_runs
import learning_tables
from learning_arms import ARMS, TASKS, Run, arm_of, variants


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('verb', choices=('run', 'table', 'figure', 'curve', 'tuning', 'list'))
  parser.add_argument('--task', default='chain', choices=TASKS)
  parser.add_argument('--arms', default=','.join(ARMS), help='names, or patterns of them')
  parser.add_argument('--seeds', default='1,2,3,4,5')
  parser.add_argument('--baselines', default='dapo', help='arms that others are compared with')
  parser.add_argument('--cores', default='0,1', help='a run on each at a time')
  default_folder = learning_runs.ROOT / 'runs/learning'
  parser.add_argument('--folder', type=pathlib.Path, default=default_folder, help='of the runs')
  parser.add_argument('--model', default='', help='folder of the model of tasks like sums')
  parser.add_argument('--output', type=pathlib.Path, help='file of the figure')
  parser.add_argument('--labels', default='', help='of the arms in the figure, one each')
  panels = learning_figure.Panels()
  parser.add_argument('--rates', default=','.join(panels.rates), help='rows of the figure')
  parser.add_argument('--costs', default=','.join(panels.costs), help='columns of the figure')
  flags = parser.parse_args()
  if flags.verb == 'run':
    runs = []
    for seed in map(int, flags.seeds.split(',')):
      runs += [Run(flags.task, arm, seed) for arm in chosen(flags.arms)]
    learning_runs.run_all(runs, flags.folder, flags.cores.split(','), flags.model)
  elif flags.verb == 'table':
    print(learning_tables.table(flags.task, flags.baselines.split(',')))
  elif flags.verb == 'figure':
    path = flags.output or learning_points.FILE.with_name(f'{flags.task}.svg')
    arms = chosen(flags.arms)
    labels = flags.labels.split(',') if flags.labels else arms
    panels = learning_figure.Panels(
      flags.rates.split(','), flags.costs.split(','), dict(zip(arms, labels, strict=True))
    )
    path.write_text(learning_figure.draw(flags.task, arms, panels))
    print(path)
  elif flags.verb == 'curve':  # for log.beside
    (arm,) = chosen(flags.arms)
    print(json.dumps(learning_tables.curve(flags.task, arm)))
  elif flags.verb == 'tuning':
    print(learning_tables.tuning(flags.task))
  else:
    for key, point in sorted(learning_points.finished(learning_points.read_points()).items()):
      print(*key, f'{100 * point["pass_at_1"]:.1f} %')


def chosen(patterns: str) -> list[str]:
  """The arms that comma-separated names and patterns stand for, in their order, each once."""
  names: dict[str, None] = {}
  for pattern in patterns.split(','):
    matching = fnmatch.filter([*ARMS, *variants()], pattern) or [pattern]
    for name in matching:
      arm_of(name)  # says what there is, if it is not one
    names |= dict.fromkeys(matching)
  return list(names)


if __name__ == '__main__':
  main()
