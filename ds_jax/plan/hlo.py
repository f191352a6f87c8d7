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
    """The first group of a pattern in the attributes; None where it does not match."""
    match = re.search(pattern, self.rest)
    return match.group(1) if match else None

  @property
  def called(self) -> str | None:
    """The computation of a fusion or a call."""
    return self.attribute(r'(?:calls|to_apply)=%?([\w.\-]+)')


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Collective:
  """Collectives of one kind."""

  count: float = 0.0
  bytes: float = 0.0  # that a device sends, on a ring


@dataclasses.dataclass(frozen=True)
class Traffic:
  """What one device moves and sends in one run of a program."""

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
  *,
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
  reader = _Reader(computations, trips, num_devices, declared=declared or {})
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
    name=name.lstrip('%'),
    result=result,
    opcode=opcode,
    operands=tuple(re.findall(r'%([\w.\-]+)', inside)),
    rest=call[closing + 1 :],
    is_root=is_root,
    literal=inside if opcode in ('parameter', 'constant') else '',
  )


def _closing(text: str, start: int) -> int:
  """Index of the parenthesis that closes the one at `start`."""
  depth = 0
  for match in re.finditer(r'[()]', text[start:]):
    depth += 1 if match.group() == '(' else -1
    if not depth:
      return start + match.start()
  raise ValueError(f'unbalanced parentheses: {text[:80]}')


def array_bytes(type_text: str, *, everywhere: bool = False) -> float:
  """Bytes of the arrays of a type that lie in main memory; `everywhere`: on-chip memory too."""
  total = 0.0
  for dtype, dims, layout in _ARRAY.findall(type_text):
    is_on_chip = re.search(r'S\([1-9]', layout)
    if everywhere or not is_on_chip:
      total += _bits(dtype) / 8 * math.prod(int(d) for d in dims.split(',') if d)
  return total


def _bits(dtype: str) -> int:
  """Bits of a number: 16 for 'bf16'; 0 for what is no array, like tokens."""
  if dtype == 'pred':
    return 8
  digits = re.search(r'\d+', dtype)
  return int(digits.group()) if digits else 0


def scope_of(line: Instruction) -> str | None:
  """The named scope right around a loop or a conditional."""
  return line.attribute(r'op_name="(?:[^"]*[/(])?(\w+)\)*/(?:while|cond)"')


def _kernel_scope(line: Instruction) -> str | None:
  """The named scope right around a Pallas kernel."""
  return line.attribute(r'op_name="[^"]*/(\w+)/pallas_call"')


class _Reader:
  """Counts the traffic of computations, each once."""

  def __init__(
    self,
    computations: dict[str, Computation],
    trips: Mapping[str, float],
    num_devices: int,
    *,
    declared: Mapping[str, float],
  ):
    self._computations, self._trips, self._num_devices = computations, trips, num_devices
    self._declared = declared
    self._counted: dict[str, Traffic] = {}

  def traffic(self, name: str) -> Traffic:
    """Of one run of a computation, with what it calls."""
    if name in self._counted:
      return self._counted[name]
    total = Traffic()
    fused: dict[str, tuple[str, Collective]] = {}
    for line in self._computations[name].values():
      total = total.plus(self._line(line, name))
      if line.opcode == 'fusion':
        fused |= self._fused_collectives(line)
    for kind, collective in fused.values():
      total = total.plus(Traffic(0.0, {kind: collective}))
    self._counted[name] = total
    return total

  def _line(self, line: Instruction, where: str) -> Traffic:
    kind = line.opcode.removesuffix('-start')
    if line.opcode == 'while':
      return self._loop(line)
    if line.opcode == 'conditional':
      return self._conditional(line)
    if kind in COLLECTIVES:
      return Traffic(self._moved(line, where), {kind: self._collective(line, kind, where)})
    if line.opcode.endswith(('-done', '-update')) or line.opcode in _FREE:
      return Traffic()
    if line.opcode in ('call', 'async-start', 'call-start') and line.called:
      return self.traffic(line.called)
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
    collectives = {}
    for inner in self._computations[line.called].values():
      kind = inner.opcode.removesuffix('-start')
      if inner.opcode in ('fusion', 'call-start'):
        collectives |= self._fused_collectives(inner)
      elif kind in COLLECTIVES:
        if line.called.startswith('all-reduce-scatter'):  # how a TPU writes it
          kind = 'reduce-scatter'
        channel = inner.attribute(r'channel_id=(\d+)') or f'{line.called}/{inner.name}'
        collectives[channel] = kind, self._collective(inner, kind, line.called)
    return collectives

  def _conditional(self, line: Instruction) -> Traffic:
    """The dearer branch, or the share of it that is known by its scope."""
    listed = line.attribute(r'branch_computations=\{([^}]*)\}')
    if listed is None:
      listed = ' '.join(re.findall(r'(?:true|false)_computation=(%[\w.\-]+)', line.rest))
    branches = [self.traffic(name) for name in re.findall(r'%([\w.\-]+)', listed)]
    branches.sort(key=lambda branch: (branch.bytes, branch.sent))
    share = self._trips.get(scope_of(line) or '', 1.0)
    return Traffic().plus(branches[-1], share).plus(branches[0], 1 - share)

  def _loop(self, line: Instruction) -> Traffic:
    body = self.traffic(line.attribute(r'body=%?([\w.\-]+)'))
    times = self._trips.get(scope_of(line) or '', self._known_trips(line))
    if times is None:
      return Traffic(loops_counted_once=1).plus(body)
    return Traffic().plus(body, times)

  def _known_trips(self, line: Instruction) -> float | None:
    """How often a loop runs that counts from 0 to a constant; None where that is not known.

    The CPU's and the GPU's compilers say it; of a TPU's the condition must be read.
    """
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
    """One collective on a ring of n devices, by the bytes that it takes from each."""
    size = 0.0
    for name in line.operands:
      size += array_bytes(self._computations[where][name].result, everywhere=True)
    n = group_size(line.rest, self._num_devices)
    rounds = (n - 1) / n
    if kind == 'all-gather':
      rounds = n - 1
    elif kind == 'all-reduce':  # scattered, then gathered
      rounds = 2 * (n - 1) / n
    elif kind == 'collective-permute':
      rounds = 1
    return Collective(1.0, size * rounds)

  def _moved(self, line: Instruction, where: str) -> float:
    """Bytes of an instruction that stands alone."""
    lines = self._computations[where]
    if line.opcode in _SLICING:
      in_memory = bool(array_bytes(lines[line.operands[0]].result))
      return array_bytes(line.result) + in_memory * array_bytes(line.result, everywhere=True)
    if line.opcode in ('dynamic-update-slice', 'scatter'):
      return 2 * array_bytes(lines[line.operands[-1 if line.opcode == 'scatter' else 1]].result)
    if line.opcode.endswith('-start'):  # its result names source and target
      arrays = [match.group() for match in _ARRAY.finditer(line.result)]
      ends = [(array_bytes(a), array_bytes(a, everywhere=True)) for a in arrays]
      moved = min((size for _, size in ends if size > 16), default=0.0)
      return sum(moved for here, size in ends if here and size > 16)
    return array_bytes(line.result) + sum(array_bytes(lines[o].result) for o in line.operands)

  def _fusion(self, line: Instruction, where: str) -> float:
    """Bytes that a fusion reads and writes."""
    moved = 0.0
    for i, name in enumerate(line.operands):
      moved += self._read(line.called, i, self._computations[where][name].result)
    return moved + self._written(line.called, line.result)

  def _read(self, name: str, index: int, type_text: str) -> float:
    """Bytes that a fused computation reads of a parameter."""
    whole = array_bytes(type_text)
    lines = self._computations[name]
    is_parameter = lambda line: line.opcode == 'parameter' and line.literal == str(index)
    waiting = [line.name for line in lines.values() if is_parameter(line)]
    if not whole:
      return 0.0
    read = 0.0
    # All that uses it, through what only passes it on; one use of the whole ends the search.
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
          for i, operand in enumerate(user.operands):
            if operand == current:
              read += self._read(user.called, i, type_text)
        elif not (user.opcode == 'dynamic-update-slice' and user.operands[0] == current):
          return whole
    return min(read, whole)

  def _relays_out(self, line: Instruction) -> bool:
    """Whether an instruction in a fusion only changes the layout, of what is read of it."""
    if line.opcode != 'fusion':
      return line.opcode == 'copy'
    inside = self._computations[line.called].values()
    return all(x.opcode in ('parameter', 'copy', 'bitcast') for x in inside)

  def _written(self, name: str, type_text: str) -> float:
    """Bytes that a fused computation writes; an update in place writes what is new."""
    lines = self._computations[name]
    waiting = [next(x for x in lines.values() if x.is_root)]
    written = 0.0
    while waiting:
      line = waiting.pop()
      sources = [lines[operand] for operand in line.operands if operand in lines]
      is_relaid = self._relays_out(line) and sources[0].opcode != 'parameter'
      if is_relaid or line.opcode in ('tuple', 'bitcast'):
        waiting += sources
      elif line.opcode == 'fusion':
        written += self._written(line.called, line.result)
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
