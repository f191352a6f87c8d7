"""Plans as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SIZES = ('parameters', 'optimizer', 'caches', 'gradients', 'temporaries', 'total')


def memory(plan: Mapping[str, Any], remedies: Mapping[str, str]) -> str:
  """GiB per device of every program, and what to do about those that do not fit."""
  parts, faults = plan['parts'], plan['faults']
  mesh = ' '.join(f'{name}={size}' for name, size in plan['mesh'].items())
  title = (
    f'{plan["place"]}, {mesh}: {plan["status"].replace("_", " ")}. GiB of '
    f'{plan["memory"] / 2**30:.2f} per device ({plan["memory_source"]})'
  )
  lines = [title, _row('', (*_SIZES, 'spare'))]
  for name, part in parts.items():
    sizes = [f'{part[field] / 2**30:.2f}' for field in _SIZES]
    lines.append(_row(name, [*sizes, f'{part["spare"]:.0%}']))
  for name, part in parts.items():
    if part['total'] > plan['memory']:
      lines.append(f'{name} does not fit: {remedies[name]}.')
  for name, fault in faults.items():
    lines.append(f'{name} was refused by the compiler ({remedies[name]}): {fault}')
  for name, slots in plan['slots'].items():
    how = 'compiled' if slots['is_compiled'] else 'estimated, does not compile'
    lines.append(
      f'{name}: {slots["configured"]} slots per device; the largest number that fits is '
      f'{slots["largest"]} ({how}).'
    )
  return '\n'.join(lines)


def work(plan: Mapping[str, Any]) -> str:
  """FLOPs, bytes and collectives per device, and what they come to at the published limits."""
  columns = ('TFLOP', 'GB moved', 'GB sent', 'ms at least', 'bound')
  lines = [_row('per device and run', columns)]
  for name, part in plan['parts'].items():
    lines.append(_row(name, _work_row(part)))
    if 'decode_step' in part:
      lines.append(_row('  one decode step', _work_row(part['decode_step'])))
  for name, part in plan['parts'].items():
    kinds = []
    for kind, total in part['collectives'].items():
      kinds.append(f'{total["count"]:.0f} {kind} {total["bytes"] / 1e9:.3f} GB')
    lines.append(f'{name} sends: {", ".join(kinds) or "nothing"}')
    if 'decode_step' in part:
      lines.append(
        f'{name}: a decode step moves '
        f'{part["decode_step"]["bytes_over_unavoidable"]:.2f} times the parameters and '
        'valid caches.'
      )
  if 'update_flops_over_needed' in plan:
    lines.append(
      f'forward and backward: {plan["update_flops_over_needed"]:.2f} times the FLOPs of '
      f'6ND with attention and remat; rows {plan["micro_rows"]} x {plan["row_length"]}.'
    )
  if 'predicted' in plan:
    lines += _predicted(plan['predicted'], plan['assumed'])
  return '\n'.join(lines)


def _work_row(work: Mapping[str, Any]) -> list[str]:
  seconds = work['seconds']
  return [
    f'{work["flops"] / 1e12:.3f}',
    f'{work["bytes"] / 1e9:.2f}',
    f'{work["sent"] / 1e9:.3f}',
    f'{1e3 * max(seconds.values()):.2f}' if seconds else '-',
    work['bound'] or '-',
  ]


def _predicted(predicted: Mapping[str, Any], assumed: Mapping[str, Any]) -> list[str]:
  p = predicted
  speed = (
    f'At the published limits: search {p["search_tokens_per_second"]:,.0f} tokens/s '
    f'({p["decode_bound"]}), update {p["update_tokens_per_second"]:,.0f} tokens/s '
    f'({p["update_bound"]}); a step {p["search_seconds_per_step"] / 60:.1f} min of search and '
    f'{p["update_seconds_per_step"] / 60:.1f} min of update; 100 steps at least '
    f'{p["chip_hours_of_100_steps"]:,.0f} chip-hours.'
  )
  return [
    speed,
    (
      f'Assumed: {assumed["expansions_per_tree"]} expansions per tree, paths of '
      f'{assumed["tokens_per_path"]} tokens, train.epochs = {assumed["epochs"]}, no '
      'prefix shared in the update.'
    ),
  ]


def scaling(plans: Sequence[Mapping[str, Any]]) -> str:
  """What a device sends in search and in one pass of the update, beside the least it must."""
  lines = [_row('GB sent per device', ('search', 'update', 'least', 'ratio', 'chip-hours'))]
  for plan in plans:
    mesh = 'x'.join(str(size) for size in plan['mesh'].values())
    lines.append(_row(f'{plan["place"]} {mesh}', _scaling_row(plan)))
  return '\n'.join(lines)


def _scaling_row(plan: Mapping[str, Any]) -> list[str]:
  parts = plan['parts']
  if not {'expand', 'forward and backward'} <= set(parts):
    return [plan['status'].replace('_', ' ')]
  least, sent = plan['fsdp_minimum'], parts['forward and backward']['sent']
  hours = plan.get('predicted', {}).get('chip_hours_of_100_steps')
  return [
    f'{parts["expand"]["sent"] / 1e9:.3f}',
    f'{sent / 1e9:.3f}',
    f'{least / 1e9:.3f}',
    f'{sent / least:.2f}' if least else '-',
    f'{hours:,.0f}' if hours else '-',
  ]


def _row(name: str, texts: Sequence[str]) -> str:
  return f'{name:<24}' + ''.join(f'{text:>14}' for text in texts)
