"""The few endpoints of the Hugging Face hub that an upload asks, and what has come to them."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = 'hf_itsMeWhoMayWrite'
READ_TOKEN = 'hf_itsMeWhoMayRead'
NARROW_TOKEN = 'hf_itsMeForOneOrganization'


def _token(role: str, **fields: Any) -> dict[str, Any]:
  access = {'displayName': 'of this test', 'role': role, **fields}
  return {'name': 'ada', 'orgs': [{'name': 'lab'}], 'auth': {'accessToken': access}}


_SCOPE = {'entity': {'type': 'org', 'name': 'lab'}, 'permissions': ['repo.write']}
_TOKENS = {
  TOKEN: _token('write'),
  READ_TOKEN: _token('read'),
  NARROW_TOKEN: _token('fineGrained', fineGrained={'scoped': [_SCOPE]}),
}

_OPEN = ('/blobs/', '/api/validate-yaml')  # asked without a token


@dataclasses.dataclass
class Repository:
  """What was uploaded."""

  is_private: bool
  files: dict[str, bytes] = dataclasses.field(default_factory=dict)
  messages: list[str] = dataclasses.field(default_factory=list)  # of commits


@dataclasses.dataclass
class FakeHub:
  """A running hub. Large files, those of tensors, go by the protocol of git-lfs."""

  repositories: dict[str, Repository] = dataclasses.field(default_factory=dict)
  requests: list[str] = dataclasses.field(default_factory=list)  # 'POST /api/repos/create', …
  answers: dict[str, int] = dataclasses.field(default_factory=dict)  # part of a request: its status
  blobs: dict[str, bytes] = dataclasses.field(default_factory=dict)  # by sha256
  address: str = ''

  def status_for(self, request: str) -> int:
    """The error that it answers; 0: none."""
    return next((status for part, status in self.answers.items() if part in request), 0)


@contextlib.contextmanager
def running() -> Iterator[FakeHub]:
  """A hub on a free port."""
  hub = FakeHub()
  handler = type('Handler', (_Handler,), {'hub': hub})
  server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
  hub.address = f'http://127.0.0.1:{server.server_port}'
  thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
  thread.start()
  try:
    yield hub
  finally:
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
  hub: FakeHub

  def log_message(self, *args: Any) -> None:
    pass

  def do_GET(self) -> None:
    self._serve(self._get)

  def do_POST(self) -> None:
    self._serve(self._post)

  def do_PUT(self) -> None:
    self._serve(self._put)

  def _serve(self, answer) -> None:
    """Answers an error where the test asks for one, and to who has no valid token."""
    path = self.path.partition('?')[0]
    request = f'{self.command} {path}'
    self.hub.requests.append(request)
    body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    status = self.hub.status_for(request)
    token = self.headers.get('Authorization', '').removeprefix('Bearer ')
    if status:
      self._send(status, {'error': f'the answer to {token} is {status}'})
    elif token not in _TOKENS and not path.startswith(_OPEN):
      self._send(401, {'error': 'Invalid username or password.'})
    else:
      answer(path, body, token)

  def _get(self, path: str, body: bytes, token: str) -> None:
    if path == '/api/whoami-v2':
      return self._send(200, _TOKENS[token])
    name = _named(r'/api/models/(.+?)(/tree/main|/revision/main)?', path)
    if name not in self.hub.repositories:
      return self._send(404, {'error': 'Repository not found'}, code='RepoNotFound')
    files = self.hub.repositories[name].files
    if path.endswith('/tree/main'):
      entry = lambda file: {'type': 'file', 'path': file, 'oid': '0', 'size': len(files[file])}
      return self._send(200, [entry(file) for file in files])
    siblings = [{'rfilename': file} for file in files]
    return self._send(200, {'id': name, 'modelId': name, 'siblings': siblings})

  def _post(self, path: str, body: bytes, token: str) -> None:
    lines = [json.loads(line) for line in body.splitlines() if line]
    if path == '/api/repos/create':
      return self._create(lines[0])
    if path == '/api/validate-yaml':
      return self._send(200, {'errors': [], 'warnings': []})
    if path.endswith('/info/lfs/objects/batch'):
      return self._answer_lfs(lines[0])
    if path.endswith('/preupload/main'):
      modes = []
      for file in lines[0]['files']:
        mode = 'lfs' if file['path'].endswith('.safetensors') else 'regular'
        modes.append({'path': file['path'], 'uploadMode': mode, 'shouldIgnore': False})
      return self._send(200, {'files': modes})
    name = _named(r'/api/models/(.+)/commit/main', path)
    return self._commit(self.hub.repositories[name], name, lines)

  def _put(self, path: str, body: bytes, token: str) -> None:
    self.hub.blobs[path.removeprefix('/blobs/')] = body
    self._send(200, {})

  def _create(self, wanted: dict[str, Any]) -> None:
    name = f'{wanted["organization"] or "ada"}/{wanted["name"]}'
    if name in self.hub.repositories:
      return self._send(409, {'error': 'exists', 'url': f'{self.hub.address}/{name}'})
    # Versions of the client say it in two ways.
    is_private = wanted.get('private') or wanted.get('visibility') == 'private'
    self.hub.repositories[name] = Repository(is_private)
    return self._send(200, {'url': f'{self.hub.address}/{name}'})

  def _answer_lfs(self, wanted: dict[str, Any]) -> None:
    objects = []
    for entry in wanted['objects']:
      upload = {'href': f'{self.hub.address}/blobs/{entry["oid"]}', 'header': {}}
      objects.append({**entry, 'actions': {'upload': upload}})
    self._send(200, {'transfer': 'basic', 'objects': objects})

  def _commit(self, repository: Repository, name: str, lines: list[dict[str, Any]]) -> None:
    for line in lines:
      value = line['value']
      if line['key'] == 'header':
        repository.messages.append(value['summary'])
      elif line['key'] == 'file':
        repository.files[value['path']] = base64.b64decode(value['content'])
      elif line['key'] == 'lfsFile':
        repository.files[value['path']] = self.hub.blobs[value['oid']]
      elif line['key'] == 'deletedFile':
        del repository.files[value['path']]
    oid = f'{len(repository.messages):040d}'
    address = f'{self.hub.address}/{name}/commit/{oid}'
    self._send(200, {'commitUrl': address, 'commitOid': oid})

  def _send(self, status: int, fields: Any, code: str = '') -> None:
    body = json.dumps(fields).encode()
    self.send_response(status)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(body)))
    if code:
      self.send_header('X-Error-Code', code)
    self.end_headers()
    self.wfile.write(body)


def _named(pattern: str, path: str) -> str:
  """The first group of a pattern that a path is of; '': it is not."""
  match = re.fullmatch(pattern, path)
  return match[1] if match else ''
