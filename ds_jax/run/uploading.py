"""A model's folder -> a repository on the Hugging Face hub.

The token comes from where huggingface_hub keeps it: HF_TOKEN, a notebook's secrets, or the file
that `hf auth login` writes. It stands in no message.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from ds_jax.checks import InputError, first_line
from ds_jax.interfaces import Team
from ds_jax.report.text import visible
from ds_jax.run.disk import CannotWrite

TOKENS_PAGE = 'https://huggingface.co/settings/tokens'
_LOG_IN = (
  f'Run `hf auth login`, or set HF_TOKEN to a token that may write, of {TOKENS_PAGE} (on Colab: as '
  'a secret of that name).'
)
# What a model's folder may have had in an earlier commit and has no more: the files of tensors of
# another size, or adapters in place of a whole model. Loaders would read them.
_OF_THE_MODEL = (
  '*.safetensors',
  '*.safetensors.index.json',
  'config.json',
  'generation_config.json',
  'adapter_config.json',
)
_WRITE = 'repo.write'  # what the hub calls the permission
_REFUSED = (401, 402, 403)  # HTTP: no valid token, to be paid for, no permission


def check_name(name: str) -> None:
  """Raises InputError unless the hub can have a model of this name."""
  try:
    validate_repo_id(name)
  except ValueError:
    raise InputError(
      f'Expected --push to be a name on the hub, MODEL or OWNER/MODEL, got {name!r}. A name has '
      'letters, digits, _, - and ., at most 96; no -- and no ..; it begins and ends with neither - '
      'nor ., and does not end in .git.'
    ) from None


def check_access(name: str, team: Team) -> str:
  """Asks the hub whether this user may write a model; nothing is made there.

  Args:
    name: MODEL, or OWNER/MODEL.
    team: whose first process asks; all must call it.

  Returns:
    The name in full, OWNER/MODEL.

  Raises:
    InputError: there is no token, the hub does not know it, or it may not write there.
    CannotWrite: the hub cannot be reached.
  """
  return _by_first(team, lambda: _allowed_name(name))


def upload(folder: Path, name: str, *, message: str, is_public: bool, team: Team) -> str:
  """Puts what a folder holds into a repository, which is made where there is none.

  What the repository holds besides stays, but for files of tensors that are not in the folder.

  Args:
    folder: a model, or adapters.
    name: OWNER/MODEL.
    message: of the commit.
    is_public: whether a new repository is; one that exists stays as it is.
    team: whose first process uploads; all must call it.

  Returns:
    Address of the repository.

  Raises:
    InputError: the hub refuses this user.
    CannotWrite: the hub cannot be reached, or fails; the folder is untouched.
  """
  return _by_first(team, lambda: _upload(folder, name, message, is_public))


def _by_first(team: Team, deed: Callable[[], str]) -> str:
  """What the first process gets by `deed`, for all of them; what stops it, stops all."""
  result = refusal = failure = ''
  if team.is_first:
    try:
      result = deed()
    except InputError as e:
      refusal = str(e)
    except CannotWrite as e:
      failure = str(e)
  of_first = team.gather(json.dumps([result, refusal, failure]).encode())[0]
  result, refusal, failure = json.loads(of_first)
  if refusal:
    raise InputError(refusal)
  if failure:
    raise CannotWrite(failure)
  return result


def _allowed_name(name: str) -> str:
  """`name` in full, if the token's owner may write there."""
  api = _api()
  with _in_words(api.token, f'--push={name}: the hub cannot be asked. '):
    who = api.whoami()
  user = who['name']
  owner, _, model = name.rpartition('/')
  full_name = f'{owner or user}/{model}'
  _check_may_write(full_name, who)
  return full_name


def _check_may_write(name: str, who: Mapping[str, Any]) -> None:
  """Raises InputError if what the hub says of a token excludes that it may write a model.

  Tokens of people have a role, 'read' or 'write', or are fine-grained: a list of scopes.
  """
  owner = name.split('/')[0]
  token = who.get('auth', {}).get('accessToken', {})
  title = token.get('displayName', '')
  remedy = f'Make one that may at {TOKENS_PAGE}.'
  if token.get('role') == 'read':
    raise InputError(f'--push={name}: the token {title!r} may read, but not write. {remedy}')
  if token.get('role') == 'fineGrained':
    if not _writable_entities(token) & {owner.lower(), name.lower()}:
      raise InputError(
        f'--push={name}: the token {title!r} may not write the repositories of {owner}. {remedy}'
      )
    return
  owners = [who['name'], *(organization['name'] for organization in who.get('orgs', ()))]
  if owner.lower() not in map(str.lower, owners):
    raise InputError(
      f'--push={name}: the token is of {who["name"]}, who does not belong to {owner}. Choose a '
      f'name of {", ".join(owners)}, e.g. --push={who["name"]}/{name.split("/")[1]}.'
    )


def _writable_entities(token: Mapping[str, Any]) -> set[str]:
  """Users, organizations and models, in lower case, that a fine-grained token may write."""
  names = set()
  for scope in token.get('fineGrained', {}).get('scoped', ()):
    if _WRITE in scope.get('permissions', ()):
      names.add(scope.get('entity', {}).get('name', '').lower())
  return names


def _upload(folder: Path, name: str, message: str, is_public: bool) -> str:
  api = _api()
  failed = (
    f'{folder} is whole, but it could not be uploaded as {name}; the same command uploads it '
    'again. '
  )
  with _in_words(api.token, failed):
    address = api.create_repo(name, private=not is_public, exist_ok=True)
    api.upload_folder(
      repo_id=name,
      folder_path=folder,
      commit_message=message,
      delete_patterns=list(_OF_THE_MODEL),
    )
  return str(address)


def _api() -> HfApi:
  """The hub's client with this user's token.

  Raises:
    InputError: there is none, what there is cannot be one, or the client is kept offline.
  """
  if huggingface_hub.constants.HF_HUB_OFFLINE:
    raise InputError('--push: HF_HUB_OFFLINE is set, which keeps from the network; unset it.')
  with _in_words('', '--push: the token cannot be read. '):
    token = huggingface_hub.get_token()
  if not token:
    raise InputError(f'--push: there is no token for the Hugging Face hub. {_LOG_IN}')
  # Of other characters HTTP clients make errors that show them all.
  if not (token.isascii() and token.isprintable() and ' ' not in token):
    raise InputError(
      f'--push: what stands for a token of the hub holds characters that no token has. {_LOG_IN}'
    )
  return HfApi(token=token, library_name='ds_jax')


@contextlib.contextmanager
def _in_words(token: str, what: str) -> Iterator[None]:
  """Says what failed, why, and what to do, without the token.

  Errors do not name the ones that caused them: theirs may show headers of requests.

  Args:
    token: hidden wherever an error shows it.
    what: begins the message, with a space at its end.
  """
  try:
    yield
  except Exception as e:  # which kinds there are depends on the client's version
    raise _translated(e, token, what) from None


def _translated(error: Exception, token: str, what: str) -> InputError | CannotWrite:
  """An error of the client in words: see `_in_words`."""
  status = getattr(getattr(error, 'response', None), 'status_code', None)
  if status is None:
    return CannotWrite(
      f'{what}{type(error).__name__}: {_reason(error, token)} Is there a network, and does it let '
      f'{huggingface_hub.constants.ENDPOINT} through?'
    )
  answer = f'{what}The hub answers {status}: {_reason(error, token)}'
  if status == 401:
    return InputError(f'{answer} It does not accept the token. {_LOG_IN}')
  if status in _REFUSED:
    return InputError(f'{answer} The token may lack the permission. {_LOG_IN}')
  return CannotWrite(f'{answer} Try again later.')


def _reason(error: Exception, token: str) -> str:
  """An error's own words, as a sentence, without the token and what a terminal would obey."""
  words = getattr(error, 'server_message', None) or first_line(error)
  words = visible(words.replace(token, '…') if token else words)
  return words if words.endswith('.') else f'{words}.'
