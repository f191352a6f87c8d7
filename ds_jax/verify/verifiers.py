"""Verifiers by name. Each is a function (gold, response) -> Verdict, imported when asked for."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import pathlib
from collections.abc import Callable

from ds_jax.checks import PYTHON, InputError, import_python, is_python_name, suggest
from ds_jax.types import Gold, Verdict

Verifier = Callable[[str, str], Verdict]

# Those that read nothing of a response but what stands in \\boxed{…}.
READERS_OF_BOXES = ('math', 'released')

_GYM = 'gym:'  # prefix of names
_BUILT_IN = {
  'math': 'ds_jax.verify.grade_math.verify',
  'math_bare': 'ds_jax.verify.grade_math.verify_bare',  # the answer need not be boxed
  'last_number': 'ds_jax.verify.grade_math.verify_last_number',  # for answers in prose
  'released': 'ds_jax.verify.grade_released.verify',
  'released_bare': 'ds_jax.verify.grade_released.verify_bare',
  'exact': 'ds_jax.verify.grade_exact.verify',
  'countdown': 'ds_jax.verify.grade_countdown.verify',
  'chain': 'ds_jax.verify.grade_chain.verify',
}


def check_name(name: str) -> None:
  """Raises InputError unless `name` has the form of a verifier; imports nothing."""
  is_gym = name.startswith(_GYM) and name != _GYM
  if name not in _BUILT_IN and not is_python_name(name) and not is_gym:
    raise InputError(
      f'Expected verifier to be one of {sorted(_BUILT_IN)}, gym:TASK or python:MODULE.FUNCTION, '
      f'got {name!r}.{suggest(name, _BUILT_IN)}'
    )


def name_for(gold: str, configured: str) -> str:
  """The verifier that judges a gold: that of a Gold, unless the user's own function is configured.

  A Gold is no text that the built-in verifiers could read; a function of the user's gets it as it
  is.
  """
  if isinstance(gold, Gold) and not configured.startswith(PYTHON):
    return gold.verifier
  return configured


@functools.cache
def resolve(name: str) -> Verifier:
  """Imports the verifier `name`, once.

  Args:
    name: one of `_BUILT_IN`, 'gym:TASK' (options as in the source) for the scorer of a task of
      reasoning-gym, or 'python:MODULE.FUNCTION' for a user's function that takes (gold, response)
      and returns a bool, a Verdict or a verdict's name.

  Returns:
    The verifier.

  Raises:
    InputError: for another name, or where the user's function cannot be imported.
  """
  check_name(name)
  if name in _BUILT_IN:
    return _import_function(_BUILT_IN[name])
  if name.startswith(_GYM):
    from ds_jax.verify.grade_gym import verifier

    return verifier(name.removeprefix(_GYM))
  return functools.partial(_call_user, _import_function(name.removeprefix(PYTHON)))


def source_digest(name: str) -> str:
  """Names the code that verdicts of the verifier `name` depend on: this folder's, and a user's.

  Two verdicts of the same name, gold and response can only differ where this differs. (Libraries
  are not looked at.)
  """
  folder = pathlib.Path(__file__).parent
  content = hashlib.blake2b(digest_size=4)
  for path in sorted(folder.rglob('*.py')):
    content.update(f'{path.relative_to(folder).as_posix()} {path.stat().st_size} '.encode())
    content.update(path.read_bytes())
  if name.startswith(PYTHON):
    content.update(_source_of(name.removeprefix(PYTHON).rpartition('.')[0]))
  return content.hexdigest()


def _source_of(module: str) -> bytes:
  """The file of a user's module, which is not imported; nothing where it is not found."""
  package, *submodules = module.split('.')
  try:
    spec = importlib.util.find_spec(package)
  except (ImportError, ValueError):
    spec = None
  if spec is None:
    return b''
  paths = [pathlib.Path(spec.origin)] if spec.has_location else []
  if submodules:
    folders = spec.submodule_search_locations or ()
    paths = [pathlib.Path(folder, *submodules).with_suffix('.py') for folder in folders]
  return b''.join(path.read_bytes() for path in paths if path.is_file())


def warm_up(name: str) -> None:
  """Imports and compiles what the first answer would otherwise pay for (worker start)."""
  if name in ('math', 'math_bare', 'last_number'):
    _import_function('ds_jax.verify.grade_math.warm_up')()


def _import_function(path: str) -> Callable[[str, str], object]:
  """Imports the function of a dotted path."""
  function = import_python('verifier', f'{PYTHON}{path}')
  if not callable(function):
    raise InputError(
      f'Expected verifier python:{path} to be a function (gold, response); '
      f'{path.rpartition(".")[0]} has none of that name.'
    )
  return function


def _call_user(function: Callable[[str, str], object], gold: str, response: str) -> Verdict:
  """Calls a user's function and reads what it returns."""
  result = function(gold, response)
  if isinstance(result, Verdict):
    return result
  if isinstance(result, str):
    return Verdict(result)
  if type(result).__name__ in ('bool', 'bool_'):  # Python's or numpy's
    return Verdict.CORRECT if result else Verdict.WRONG
  raise TypeError(
    f'Expected a bool, a Verdict or one of {[v.value for v in Verdict]} from the '
    f'verifier, got {type(result).__name__}.'
  )
