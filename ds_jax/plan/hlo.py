"""Memory traffic and collectives of a compiled program, read from its HLO text.

XLA's own cost analysis counts the body of a loop once. Here it counts as often as it runs: by the
compiler's known trip count, or the constant that the counter is compared with, or what the caller
knows of the `jax.named_scope` around it. As in XLA's HloCostAnalysis, a fusion counts what it reads
and writes and a slice what it slices; on-chip memory does not count.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

COLLECTIVES = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute')

_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_FREE = {
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'iota',
  'partition-id',
  'replica-id',
  'opt-barrier',
  'optimization-barrier',
  'domain',
}
_SLICING = {'dynamic-slice', 'slice', 'gather'}


class Instruction(NamedTuple):
  """One line: `name = result opcode(operands), rest`."""

  name: str
  result: str  # its type
  opcode: str
  operands: tuple[str, ...]  # names
  rest: str  # attributes
  is_root: bool
  literal: str  # the number of a parameter, the value of a constant

  def attribute(self, pattern: str) -> str | None:
    found = re.search(pattern, self.rest)
    return found.group(1) if found else None


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Collective:
  """Collectives of one kind."""

  count: float = 0.0
  bytes: float = 0.0  # that a device sends, on a ring


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Of one device, in one run of a program."""

  bytes: float = 0.0  # read from and written to memory
  collectives: Mapping[str, Collective] = dataclasses.field(default_factory=dict)
  loops_counted_once: int = 0  # the compiler's own, of unknown length

  @property
  def sent(self) -> float:
    """Bytes of all collectives."""
    return sum(c.bytes for c in self.collectives.values())

  def plus(self, other: Traffic, times: float = 1.0) -> Traffic:
    """The sum with `times` runs of the other."""
    kinds = dict(self.collectives)
    for kind, more in other.collectives.items():
      old = kinds.get(kind, Collective())
      kinds[kind] = Collective(old.count + times * more.count, old.bytes + times * more.bytes)
    return Traffic(
      self.bytes + times * other.bytes, kinds, self.loops_counted_once + other.loops_counted_once
    )


def read_traffic(
  text: str,
  trips: Mapping[str, float],
  num_devices: int,
  loop: str | None = None,
  declared: Mapping[str, float] | None = None,
) -> Traffic:
  """What a compiled program moves.

  Args:
    text: of `jax.stages.Compiled.as_text()`.
    trips: how often loops run whose length the compiler does not know, by their named scope;
      of a conditional, the share of runs that take its dearer branch, and of a kernel, the share
      of what it may read (not named: all).
    num_devices: of the program; for collectives that name no groups.
    loop: if given, one run of the body of the loop of this scope instead of the whole program.
    declared: of `products.declared_bytes`, for GPUs.

  Raises:
    ValueError: if there is no loop of that scope.
  """
  entry, computations = parse(text)
  reader = _Reader(computations, trips, num_devices, declared or {})
  if loop is None:
    return reader.traffic(entry)
  for computation in computations.values():
    for line in computation.values():
      if line.opcode == 'while' and scope_of(line) == loop:
        return reader.traffic(line.attribute(r'body=%?([\w.\-]+)'))
  raise ValueError(f'The program has no loop under the scope {loop!r}.')


def parse(text: str) -> tuple[str, dict[str, Computation]]:
  """The name of the entry computation, and all computations by name."""
  computations: dict[str, Computation] = {}
  entry, lines = '', {}
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header:
      lines = computations[header.group(2)] = {}
      entry = header.group(2) if header.group(1) else entry
    elif computations and line.startswith('  ') and ' = ' in line:
      instruction = _parse_line(line.strip())
      lines[instruction.name] = instruction
  return entry, computations


def _parse_line(line: str) -> Instruction:
  is_root = line.startswith('ROOT ')
  name, _, rest = line.removeprefix('ROOT ').partition(' = ')
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  result, call = rest[:end], rest[end:].strip()
  opening = call.index('(')
  closing = _closing(call, opening)
  inside = call[opening + 1 : closing]
  opcode = call[:opening]
  return Instruction(
    name.lstrip('%'),
    result,
    opcode,
    tuple(re.findall(r'%([\w.\-]+)', inside)),
    call[closing + 1 :],
    is_root,
    inside if opcode in ('parameter', 'constant') else '',
  )


def _closing(text: str, start: int) -> int:
  """Index of the parenthesis that closes the one at `start`."""
  depth = 0
  for found in re.finditer(r'[()]', text[start:]):
    depth += 1 if found.group() == '(' else -1
    if not depth:
      return start + found.start()
  raise ValueError(f'unbalanced parentheses: {text[:80]}')


def array_bytes(type_text: str, *, everywhere: bool = False) -> float:
  """Bytes of the arrays of a type that lie in main memory; `everywhere`: on-chip memory too."""
  total = 0.0
  for dtype, dims, layout in _ARRAY.findall(type_text):
    bits = (
      8
      if dtype == 'pred'
      else int(re.search(r'\d+', dtype).group())
      if re.search(r'\d', dtype)
      else 0
    )
    if everywhere or not re.search(r'S\([1-9]', layout):
      total += bits / 8 * math.prod(int(d) for d in dims.split(',') if d)
  return total


def scope_of(line: Instruction) -> str | None:
  """The named scope right around a loop or a conditional."""
  return line.attribute(r'op_name="(?:[^"]*[/(])?(\w+)\)*/(?:while|cond)"')


def _kernel_scope(line: Instruction) -> str | None:
  return line.attribute(r'op_name="[^"]*/(\w+)/pallas_call"')


class _Reader:
  """Traffic of computations, each found once."""

  def __init__(
    self,
    computations: dict[str, Computation],
    trips: Mapping[str, float],
    num_devices: int,
    declared: Mapping[str, float],
  ):
    self._computations, self._trips, self._num_devices = computations, trips, num_devices
    self._declared = declared
    self._found: dict[str, Traffic] = {}

  def traffic(self, name: str) -> Traffic:
    if name not in self._found:
      total, fused = Traffic(), {}
      for line in self._computations[name].values():
        total = total.plus(self._line(line, name))
        if line.opcode == 'fusion':
          fused |= self._fused_collectives(line)
      for kind, collective in fused.values():
        total = total.plus(Traffic(0.0, {kind: collective}))
      self._found[name] = total
    return self._found[name]

  def _line(self, line: Instruction, where: str) -> Traffic:
    kind = line.opcode.removesuffix('-start')
    if line.opcode == 'while':
      return self._loop(line)
    if line.opcode == 'conditional':
      names = re.findall(
        r'%([\w.\-]+)',
        line.attribute(r'branch_computations=\{([^}]*)\}')
        or ' '.join(re.findall(r'(?:true|false)_computation=(%[\w.\-]+)', line.rest)),
      )
      branches = sorted(map(self.traffic, names), key=lambda t: (t.bytes, t.sent))
      share = self._trips.get(scope_of(line) or '', 1.0)
      return Traffic().plus(branches[-1], share).plus(branches[0], 1 - share)
    if kind in COLLECTIVES:
      return Traffic(self._moved(line, where), {kind: self._collective(line, kind, where)})
    if line.opcode.endswith(('-done', '-update')) or line.opcode in _FREE:
      return Traffic()
    called = line.attribute(r'(?:calls|to_apply)=%?([\w.\-]+)')
    if line.opcode in ('call', 'async-start', 'call-start') and called:
      return self.traffic(called)
    if line.opcode == 'fusion':
      return Traffic(self._fusion(line, where))
    if line.opcode == 'custom-call' and _kernel_scope(line):
      return Traffic(self._kernel(line))
    return Traffic(self._moved(line, where))

  def _kernel(self, line: Instruction) -> float:
    """Bytes of a Pallas kernel: what it declares, times the share that is known by its scope."""
    scope = _kernel_scope(line)
    declared = line.attribute(r'"bytes_accessed":"(\d+)"') or self._declared[scope]
    return self._trips.get(scope, 1.0) * float(declared) + array_bytes(line.result)

  def _fused_collectives(self, line: Instruction) -> dict[str, tuple[str, Collective]]:
    """Kind and size by channel: a TPU's asynchronous one stands in up to three fusions."""
    called = line.attribute(r'(?:calls|to_apply)=%?([\w.\-]+)')
    found = {}
    for inner in self._computations[called].values():
      kind = inner.opcode.removesuffix('-start')
      if inner.opcode in ('fusion', 'call-start'):
        found |= self._fused_collectives(inner)
      elif kind in COLLECTIVES:
        if called.startswith('all-reduce-scatter'):  # how a TPU writes it
          kind = 'reduce-scatter'
        channel = inner.attribute(r'channel_id=(\d+)') or f'{called}/{inner.name}'
        found[channel] = kind, self._collective(inner, kind, called)
    return found

  def _loop(self, line: Instruction) -> Traffic:
    body = self.traffic(line.attribute(r'body=%?([\w.\-]+)'))
    times = self._trips.get(scope_of(line) or '', self._known_trips(line))
    if times is None:
      return Traffic(loops_counted_once=1).plus(body)
    return Traffic().plus(body, times)

  def _known_trips(self, line: Instruction) -> float | None:
    """Of a loop that counts from 0 to a constant; a TPU's compiler does not say it otherwise."""
    known = line.attribute(r'known_trip_count[^\d}]*(\d+)')
    if known:
      return float(known)
    lines = self._computations[line.attribute(r'condition=%?([\w.\-]+)')]
    root = next(x for x in lines.values() if x.is_root)
    if root.opcode != 'compare' or 'direction=LT' not in root.rest:
      return None
    limit = lines[root.operands[1]]
    return float(limit.literal) if limit.opcode == 'constant' else None

  def _collective(self, line: Instruction, kind: str, where: str) -> Collective:
    size = sum(
      array_bytes(self._computations[where][name].result, everywhere=True) for name in line.operands
    )
    num = group_size(line.rest, self._num_devices)
    share = {'all-gather': num - 1, 'all-reduce': 2 * (num - 1) / num, 'collective-permute': 1}.get(
      kind, (num - 1) / num
    )
    return Collective(1.0, size * share)

  def _moved(self, line: Instruction, where: str) -> float:
    """Bytes of an instruction that stands alone."""
    lines = self._computations[where]
    if line.opcode in _SLICING:
      in_memory = bool(array_bytes(lines[line.operands[0]].result))
      return array_bytes(line.result) + in_memory * array_bytes(line.result, everywhere=True)
    if line.opcode in ('dynamic-update-slice', 'scatter'):
      return 2 * array_bytes(lines[line.operands[-1 if line.opcode == 'scatter' else 1]].result)
    if line.opcode.endswith('-start'):  # its result names source and target
      arrays = [found.group() for found in _ARRAY.finditer(line.result)]
      ends = [(array_bytes(a), array_bytes(a, everywhere=True)) for a in arrays]
      moved = min((size for _, size in ends if size > 16), default=0.0)
      return sum(moved for here, size in ends if here and size > 16)
    return array_bytes(line.result) + sum(array_bytes(lines[o].result) for o in line.operands)

  def _fusion(self, line: Instruction, where: str) -> float:
    called = line.attribute(r'calls=%?([\w.\-]+)')
    read = sum(
      self._read(called, i, self._computations[where][name].result)
      for i, name in enumerate(line.operands)
    )
    return read + self._written(called, line.result)

  def _read(self, name: str, index: int, type_text: str) -> float:
    """Bytes that a fused computation reads of a parameter."""
    whole = array_bytes(type_text)
    lines = self._computations[name]
    start = next(
      (x.name for x in lines.values() if x.opcode == 'parameter' and x.literal == str(index)), None
    )
    if not whole or start is None:
      return 0.0
    read, waiting = 0.0, [start]
    while waiting:
      current = waiting.pop()
      for user in lines.values():
        if current not in user.operands:
          continue
        if user.opcode == 'bitcast' or (self._relays_out(user) and not user.is_root):
          waiting.append(user.name)
        elif user.opcode in _SLICING and user.operands[0] == current:
          read += array_bytes(user.result, everywhere=True)
        elif user.opcode == 'fusion':
          inner = user.attribute(r'calls=%?([\w.\-]+)')
          read += sum(
            self._read(inner, i, type_text)
            for i, operand in enumerate(user.operands)
            if operand == current
          )
        elif not (user.opcode == 'dynamic-update-slice' and user.operands[0] == current):
          return whole
    return min(read, whole)

  def _relays_out(self, line: Instruction) -> bool:
    """Whether an instruction in a fusion only changes the layout, of what is read of it."""
    if line.opcode != 'fusion':
      return line.opcode == 'copy'
    inside = self._computations[line.attribute(r'calls=%?([\w.\-]+)')].values()
    return all(x.opcode in ('parameter', 'copy', 'bitcast') for x in inside)

  def _written(self, name: str, type_text: str) -> float:
    """Bytes that a fused computation writes; an update in place writes what is new."""
    lines = self._computations[name]
    waiting = [next(x for x in lines.values() if x.is_root)]
    written = 0.0
    while waiting:
      line = waiting.pop()
      sources = [lines[operand] for operand in line.operands if operand in lines]
      if line.opcode in ('tuple', 'bitcast') or (
        self._relays_out(line) and sources[0].opcode != 'parameter'
      ):
        waiting += sources
      elif line.opcode == 'fusion':
        written += self._written(line.attribute(r'calls=%?([\w.\-]+)'), line.result)
      elif line.opcode == 'dynamic-update-slice':
        written += array_bytes(lines[line.operands[1]].result, everywhere=True)
      elif line.opcode != 'parameter':
        written += array_bytes(line.result, everywhere=True)
    return min(written, array_bytes(type_text))


def group_size(rest: str, num_devices: int) -> int:
  """Devices of one replica group; all, where none are named."""
  axes = re.search(r'replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}', rest)
  if axes:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes.group(1)))
    return math.prod(int(sizes[a]) for a in re.findall(r"'(\w+)'", axes.group(2)))
  listed = re.search(r'replica_groups=\{\{([\d,]+)\}', rest)
  if listed:
    return len(listed.group(1).split(','))
  tiled = re.search(r'replica_groups=\[\d+,(\d+)\]', rest)
  return int(tiled.group(1)) if tiled else num_devices
