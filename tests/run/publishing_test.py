"""`ds-jax export --push`: what reaches the hub, what is refused before work, and what stays."""

from __future__ import annotations

import json
import re

import fake_hub
import huggingface_hub
import pytest
from untrained_run import write_run

import ds_jax
from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.interfaces import ALONE, SilentProgress
from ds_jax.run import exporting, uploading
from ds_jax.run.disk import CannotWrite
from ds_jax.run.workdir import Workdir


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Workdir:
  return write_run(tmp_path_factory.mktemp('publishing'), 'mine')[0]


@pytest.fixture
def hub(monkeypatch, tmp_path):
  """A hub, asked by the real client with a token that may write."""
  with fake_hub.running() as running:
    monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', running.address)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_TOKEN_PATH', str(tmp_path / 'token'))
    # Large files go by git-lfs, whose protocol is open.
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setenv('HF_TOKEN', fake_hub.TOKEN)
    forget_sessions()
    yield running
  forget_sessions()


def forget_sessions() -> None:
  """The client asks anew; before its version 1 a session that was made offline stays so."""
  if hasattr(huggingface_hub, 'close_session'):
    huggingface_hub.close_session()
  else:
    huggingface_hub.configure_http_backend()


@pytest.fixture
def nothing_is_read(monkeypatch):
  """Work on parameters fails the test."""

  def fail(*args, **kwargs):
    raise AssertionError('refusals come before any work')

  monkeypatch.setattr(exporting, 'restore_for', fail)


def export(capsys, run, *flags):
  code = main(['export', f'--checkpoint={run.root}', *map(str, flags), '--json'])
  captured = capsys.readouterr()
  assert 'hf_its' not in captured.out + captured.err and 'Traceback' not in captured.err
  return code, json.loads(captured.out.splitlines()[-1]) if captured.out else {}, captured.err


def test_a_model_arrives_whole_and_private(run, hub, capsys, tmp_path):
  folder = tmp_path / 'out'
  code, summary, err = export(capsys, run, f'--output={folder}', '--push=tiny')
  assert code == 0, err
  assert summary['address'] == f'{hub.address}/ada/tiny' and summary['address'] in err
  (name, repository), *others = hub.repositories.items()
  assert name == 'ada/tiny' and not others and repository.is_private
  assert repository.messages == ['Step 2 of mine, by ds_jax']
  assert repository.files == {path.name: path.read_bytes() for path in folder.iterdir()}
  assert {'README.md', 'config.json', 'model.safetensors'} <= repository.files.keys()


def test_the_same_command_uploads_again_what_is_there(run, hub, capsys, tmp_path, monkeypatch):
  flags = f'--output={tmp_path}/out', '--push=lab/tiny', '--public'
  hub.answers['/commit/'] = 500
  code, summary, err = export(capsys, run, *flags)
  assert code == 74 and summary['status'] == 'cannot_write'
  assert 'is whole, but it could not be uploaded' in err and 'answers 500' in err
  before = {path: path.read_bytes() for path in (tmp_path / 'out').iterdir()}
  hub.answers.clear()
  monkeypatch.setattr(exporting, 'restore_for', lambda *args, **kwargs: pytest.fail('read'))
  code, summary, err = export(capsys, run, *flags)
  assert code == 0 and summary['step'] == 2, err
  assert {path: path.read_bytes() for path in (tmp_path / 'out').iterdir()} == before
  assert not hub.repositories['lab/tiny'].is_private
  for other in ('--dtype=bfloat16', '--step=0'):
    code, _, err = export(capsys, run, *flags, other)
    assert code == 2 and re.search('holds another export|no checkpoint of that step', err)
  code, _, err = export(capsys, run, flags[0])
  assert code == 2 and 'exists already' in err


def test_tensors_of_an_earlier_commit_go_and_other_files_stay(run, hub, capsys, tmp_path):
  old = {'model-00001-of-00002.safetensors': b'', 'adapter_config.json': b'', 'picture.png': b''}
  hub.repositories['ada/tiny'] = fake_hub.Repository(False, dict(old))
  code, _, err = export(capsys, run, f'--output={tmp_path}/out', '--push=ada/tiny')
  assert code == 0, err
  files = hub.repositories['ada/tiny'].files
  assert old.keys() & files.keys() == {'picture.png'} and 'model.safetensors' in files
  assert not hub.repositories['ada/tiny'].is_private  # it was public, and stays so


@pytest.mark.parametrize('name', ['a/b/c', 'a b', '../x', 'me/x.git', 'me/', 'https://hub/me/x'])
def test_a_name_is_refused_before_the_hub_is_asked(
  run, hub, nothing_is_read, capsys, tmp_path, name
):
  code, _, err = export(capsys, run, f'--output={tmp_path}/out', f'--push={name}')
  assert code == 2 and 'Expected --push to be a name on the hub' in err
  assert not hub.requests and not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'token, name, words',
  [
    ('', 'x', 'there is no token'),
    ('hf_itsMe\x01', 'x', 'characters that no token has'),
    ('hf_itsMeNoMore', 'x', 'does not accept the token'),
    (fake_hub.READ_TOKEN, 'x', 'may read, but not write'),
    (fake_hub.NARROW_TOKEN, 'ada/x', 'may not write the repositories of ada'),
    (fake_hub.TOKEN, 'somebody/x', 'does not belong to somebody'),
  ],
)
def test_who_may_not_write_is_refused_before_work(
  run, hub, nothing_is_read, capsys, tmp_path, monkeypatch, token, name, words
):
  monkeypatch.setenv('HF_TOKEN', token)
  code, _, err = export(capsys, run, f'--output={tmp_path}/out', f'--push={name}')
  assert code == 2 and words in err
  assert not (tmp_path / 'out').exists() and not hub.repositories


def test_a_token_for_one_organization_serves_there(hub, monkeypatch):
  monkeypatch.setenv('HF_TOKEN', fake_hub.NARROW_TOKEN)
  assert uploading.check_access('Lab/x', ALONE) == 'Lab/x'


def test_the_file_of_the_login_is_read(hub, monkeypatch, tmp_path):
  monkeypatch.delenv('HF_TOKEN')
  (tmp_path / 'token').write_text(f'{fake_hub.TOKEN}\n')
  assert uploading.check_access('x', ALONE) == 'ada/x'


@pytest.mark.parametrize(
  'status, error', [(403, InputError), (500, CannotWrite), (503, CannotWrite)]
)
def test_what_the_hub_says_is_said_without_the_token(hub, status, error):
  hub.answers['whoami'] = status
  # The client's own words, from its version 1 on those of the hub, follow the status.
  said = f'the answer to … is {status}'
  if not hasattr(huggingface_hub, 'close_session'):
    said = 'Invalid user token'
  with pytest.raises(error, match=f'answers {status}: {said}') as caught:
    uploading.check_access('x', ALONE)
  assert caught.value.__cause__ is caught.value.__context__ is None


def test_without_a_network_nothing_is_begun(
  run, nothing_is_read, hub, capsys, tmp_path, monkeypatch
):
  monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', 'http://127.0.0.1:9')
  code, _, err = export(capsys, run, f'--output={tmp_path}/out', '--push=x')
  assert code == 74 and 'Is there a network' in err and '127.0.0.1:9' in err
  monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
  code, _, err = export(capsys, run, f'--output={tmp_path}/out', '--push=x')
  assert code == 2 and 'HF_HUB_OFFLINE is set' in err and not (tmp_path / 'out').exists()


class Team:
  """The second of two processes; the first has said what it found."""

  index, count, is_first = 1, 2, False

  def __init__(self, *of_first: str):
    self.of_first = json.dumps(of_first).encode()

  def gather(self, data: bytes) -> list[bytes]:
    return [self.of_first, data]


def test_of_several_processes_the_first_alone_uploads(hub, tmp_path):
  upload = lambda team: uploading.upload(tmp_path, 'ada/x', message='', is_public=False, team=team)
  assert upload(Team('its address', '', '')) == 'its address'
  with pytest.raises(InputError, match='of the first'):
    upload(Team('', 'of the first', ''))
  with pytest.raises(CannotWrite, match='of the first'):
    upload(Team('', '', 'of the first'))
  assert not hub.requests


def test_public_without_an_upload_is_a_mistake(run, capsys, tmp_path):
  code, _, err = export(capsys, run, f'--output={tmp_path}/out', '--public')
  assert code == 2 and '--public is for models that are uploaded' in err


def test_a_session_uploads_too(run, hub, tmp_path):
  with ds_jax.open_session(workdir=run.root, progress=SilentProgress()) as session:
    with pytest.raises(InputError, match='public=True is for models that are uploaded'):
      session.export(tmp_path / 'out', public=True)
    outcome = session.export(tmp_path / 'out', push='tiny', public=True)
  assert outcome['address'] == f'{hub.address}/ada/tiny'
  assert not hub.repositories['ada/tiny'].is_private
