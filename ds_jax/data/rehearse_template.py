"""Renders a chat template once, in a process of its own that may neither hang nor eat the memory.

Reads a request of ChatTemplate.rehearse from standard input; prints {"text": …} or {"error": …}.
"""

from __future__ import annotations

import datetime
import json
import resource
import sys
import types

from ds_jax.checks import InputError
from ds_jax.data.chat_template import ChatTemplate

CPU_SECONDS = 2
MEMORY = 2**30  # bytes, above what the interpreter has


def main() -> None:
  request = json.loads(sys.stdin.buffer.read())
  messages = [
    types.SimpleNamespace(role=role, content=content) for role, content in request.pop('messages')
  ]
  date = datetime.date.fromisoformat(request.pop('date'))
  template = ChatTemplate(date=date, **request)
  resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  try:
    template.check()
    answer = {'text': template.render(messages)}
  except InputError as e:
    answer = {'error': str(e)}
  except MemoryError:
    answer = {'error': f'{template.origin} fails: it needs too much memory.'}
  print(json.dumps(answer))
