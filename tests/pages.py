"""The pages of the checkout: found, and taken apart into links, blocks, commands and names."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDERS = ('ds_jax', 'configs', 'launch', 'tests')
METRICS_PAGE = 'ds_jax/report/README.md'
_FENCE = re.compile(r'^```(\w*)\s*$')
_NEEDS = re.compile(r'^<!-- needs: ([\w, ]+) -->$')
_LINK = re.compile(r'(?<!\\)\]\(([^)\s]+)\)')
_SPAN = re.compile(r'`([^`]+)`')
_HEADING = re.compile(r'^#{1,6} (.+)$')


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block."""

  line: int
  language: str
  needs: tuple[str, ...]  # what it cannot be run without, e.g. 'cloud'; (): it runs
  text: str


@dataclasses.dataclass(frozen=True)
class Page:
  """A page, read."""

  path: Path
  name: str  # its path under the checkout
  blocks: tuple[Block, ...]
  prose: tuple[tuple[int, str], ...]  # (line number, text) of what stands outside of blocks

  @property
  def links(self) -> list[tuple[int, str]]:
    """(line number, target) of every link and picture."""
    found = []
    for number, line in self.prose:
      found += [(number, target) for target in _LINK.findall(_SPAN.sub('', line))]
    return found

  @property
  def spans(self) -> list[tuple[int, str]]:
    """(line number of its paragraph, text) of everything between backquotes."""
    found, paragraph, first = [], [], 0
    for number, line in (*self.prose, (0, '')):
      if not line.strip():
        text = ' '.join(paragraph)
        found += [(first, ' '.join(span.split())) for span in _SPAN.findall(text)]
        paragraph = []
        continue
      first = first if paragraph else number
      paragraph.append(line)
    return found

  @property
  def anchors(self) -> set[str]:
    """What a link may name behind `#`, as GitHub makes it of headings."""
    anchors: set[str] = set()
    for _, line in self.prose:
      heading = _HEADING.match(line)
      if heading is None:
        continue
      text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading[1]).replace('`', '').lower()
      anchor = re.sub(r'[^\w\- ]', '', text).strip().replace(' ', '-')
      number = sum(
        a == anchor or re.fullmatch(rf'{re.escape(anchor)}-\d+', a) is not None for a in anchors
      )
      anchors.add(f'{anchor}-{number}' if number else anchor)
    return anchors


def find_pages(root: Path) -> list[Page]:
  """Every page of the checkout; what users write into other folders is theirs."""
  paths = [*root.glob('*.md')]
  for folder in FOLDERS:
    paths += (root / folder).rglob('*.md')
  return [read_page(path, str(path.relative_to(root))) for path in sorted(paths)]


def read_page(path: Path, name: str = '') -> Page:
  """Reads one page, whose name is its path unless another is given."""
  blocks, prose = [], []
  language, first, needs, text = None, 0, (), []
  for number, line in enumerate(path.read_text().splitlines(), 1):
    fence = _FENCE.match(line)
    if language is None and fence is not None:
      language, first, text = fence[1], number, []
    elif language is not None and fence is not None:
      blocks.append(Block(first, language, needs, '\n'.join(text)))
      language, needs = None, ()
    elif language is not None:
      text.append(line)
    else:
      marker = _NEEDS.match(line)
      needs = tuple(re.split(r',\s*', marker[1])) if marker else ()
      prose.append((number, line))
  assert language is None, f'{path}:{first}: this block does not end'
  return Page(path, name or str(path), tuple(blocks), tuple(prose))


def commands_of(text: str) -> Iterator[list[str]]:
  """The words of every command of a shell's lines, pipes and chains taken apart."""
  for line in text.replace('\\\n', ' ').splitlines():
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), '|']:
      if word in ('|', '&&'):
        if words:
          yield words
        words = []
      else:
        words.append(word)


def gcloud_commands(pages: Iterable[Page]) -> set[str]:
  """The commands of gcloud in all pages, a line each."""
  found = set()
  for page in pages:
    for block in page.blocks:
      for line in block.text.replace('\\\n', ' ').splitlines():
        if line.startswith('gcloud '):
          found.add(' '.join(line.split()))
  return found


def undocumented(rows: Iterable[dict], root: Path) -> set[str]:
  """Metrics of some rows that the table of METRICS_PAGE does not name."""
  text = (root / METRICS_PAGE).read_text()
  names = set(re.findall(r'`([a-z]+/[a-zA-Z_0-9/]+)`', text[text.index('## Metrics') :]))
  fields = set()
  for row in rows:
    fields |= {_general(name) for name in row}
  return fields - names - {'step', 'kind', 'round', 'when'}


def _general(name: str) -> str:
  """The name of a metric as the table has it: of any depth, temperature and bound."""
  name = re.sub(r'/t_[\d.]+', '/t_T', re.sub(r'depth_\d+', 'depth_D', name))
  if name.startswith('evaluate/t_T/'):  # 'and all others'
    return 'evaluate/t_T/pass_at_1'
  return re.sub(r'_(low|high)$', '', name)
