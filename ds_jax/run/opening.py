"""Opening the model of a run: from what the run keeps of it, or from the model's own folder."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from ds_jax.checks import InputError
from ds_jax.data.prompts import ChatTokenizer, load_tokenizer
from ds_jax.hub import local_folder
from ds_jax.model.config import DecoderConfig
from ds_jax.model.huggingface.config import read_config
from ds_jax.run import model_files
from ds_jax.run.prompts import keep_template_date, open_tokenizer
from ds_jax.run.session import Session

_MAX_SHOWN = 5  # differences that an error names


@dataclasses.dataclass(frozen=True)
class OpenedModel:
  """All of a model but its weights."""

  folder: pathlib.Path  # of its tokenizer and its config.json
  tokenizer: ChatTokenizer
  decoder_config: DecoderConfig  # in the number formats of the session's config


def open_model(session: Session) -> OpenedModel:
  """Reads tokenizer and shape: of --model, else what the run keeps, else of config.model.path.

  Raises:
    InputError: if there is no such folder, it cannot be read, or it is not of the run's model.
  """
  folder = model_folder(session)
  read_config(folder)  # a missing folder is named before the tokenizer that it lacks
  opened = _read(session, folder, open_tokenizer(session, folder))
  if session.model or (has_kept(session) and not keeps_model(session)):
    _check_fits(session, opened)
  return opened


def model_folder(session: Session) -> pathlib.Path:
  """The folder of tokenizer and config.json, downloaded where it has to be.

  Raises:
    InputError: if there is none, or what the run keeps is damaged.
  """
  if keeps_model(session) and not session.model:
    model_files.check_kept(session.workdir.model_files)
    return session.workdir.model_files
  return source_folder(session)


def source_folder(session: Session) -> pathlib.Path:
  """The model's own folder, which has its weights, downloaded where it has to be.

  Raises:
    InputError: if there is none.
  """
  path = session.config.model.path
  if session.model:
    return _existing(local_folder(session.model), f'--model={session.model}')
  if not path:
    return session.workdir.warmstart
  if session.workdir is None or not session.workdir.config.exists():
    return local_folder(path)
  hint = (
    f' {session.workdir.root} needs it: it keeps no files of its model, has no checkpoint yet, or '
    'its checkpoints hold adapters alone (train.lora_rank). '
    'If the model has moved, name its folder with --model=FOLDER (export, evaluate, search).'
  )
  try:
    folder = local_folder(path)
  except InputError as e:
    raise InputError(f'{e}{hint}') from e
  return _existing(folder, f'model.path={path}', hint)


def has_kept(session: Session) -> bool:
  """Whether the workdir holds files of a model."""
  return session.workdir is not None and model_files.is_whole(session.workdir.model_files)


def keeps_model(session: Session) -> bool:
  """Whether the workdir holds the files of the model that the config names."""
  if not has_kept(session):
    return False
  return model_files.is_of(session.workdir.model_files, session.config.model.path)


def keep_model(session: Session, tokenizer: ChatTokenizer) -> None:
  """Keeps what the run needs of its model, once, and the day that its chat template was told.

  Says so where the model has changed since.

  Args:
    session: of a run that trains; of its first process.
    tokenizer: the one that the run trains with; the files are checked to be its.

  Raises:
    InputError: if the config names another model than the one whose files are kept, or its files
      are no longer those that `tokenizer` was loaded from.
  """
  if keeps_model(session):
    _note_changed(session)
  else:
    _keep_files(session, tokenizer)
  keep_template_date(session.workdir, tokenizer)


def _note_changed(session: Session) -> None:
  """Says so if the model's own files are no longer those that the run keeps."""
  folder, path = session.workdir.model_files, session.config.model.path
  source = pathlib.Path(path).expanduser() if path else session.workdir.warmstart
  names = model_files.changed_since(folder, source) if source.is_dir() else []
  if names:
    session.progress.note(
      f'{source} has changed since the run began ({_shown(names)}); the run goes on with the files '
      f'that it keeps in {folder}. For the new ones choose another --workdir.'
    )


def _keep_files(session: Session, tokenizer: ChatTokenizer) -> None:
  """Copies the model's files into the workdir; see `keep_model`."""
  folder, source = session.workdir.model_files, source_folder(session)
  names = model_files.changed_since(folder, source) if has_kept(session) else []
  if names:
    raise InputError(
      f'{source} is not the model that {session.workdir.root} began with: {_shown(names)} differs '
      f'from what the run keeps in {folder}. Name that model, or choose another --workdir.'
    )
  model_files.keep(source, folder, path=session.config.model.path)
  difference = tokenizer_difference(tokenizer, load_tokenizer(folder))
  if difference:
    model_files.forget(folder)
    raise InputError(
      f'The files of {source}, copied to {folder}, make another tokenizer ({difference}) than this '
      'run has begun with; if they changed just now, run the same command again.'
    )


def shape_difference(ours: DecoderConfig, theirs: DecoderConfig) -> str:
  """What two models differ in, the ids of their tokenizers aside; '': nothing."""
  differences = []
  for field in dataclasses.fields(DecoderConfig):
    a, b = getattr(ours, field.name), getattr(theirs, field.name)
    if a != b and field.name != 'num_ids':
      differences.append(f'{field.name} {b!r}, not {a!r}')
  return '; '.join(differences)


def tokenizer_difference(ours: ChatTokenizer, theirs: ChatTokenizer) -> str:
  """What differs in vocabulary, chat template, end and padding ids; '': nothing."""
  differences = [vocabulary_difference(ours, theirs) or vocabulary_difference(theirs, ours)]
  if ours.tokenizer.chat_template != theirs.tokenizer.chat_template:
    differences.append('the chat template')
  if (ours.stop_ids, ours.pad_id) != (theirs.stop_ids, theirs.pad_id):
    differences.append(f'end ids {theirs.stop_ids}, not {ours.stop_ids}')
  return '; '.join(filter(None, differences))


def vocabulary_difference(ours: ChatTokenizer, theirs: ChatTokenizer) -> str:
  """Our tokens that have another id in `theirs`, which may have more tokens; '': none."""
  differences = []
  vocabulary = theirs.tokenizer.get_vocab()
  for token, index in sorted(ours.tokenizer.get_vocab().items(), key=lambda item: item[1]):
    if vocabulary.get(token) != index:
      differences.append(f'token {token!r} is {vocabulary.get(token)}, not {index}')
  if len(differences) > _MAX_SHOWN:
    differences[_MAX_SHOWN:] = [f'… ({len(differences)} in all)']
  return '; '.join(differences)


def _read(session: Session, folder: pathlib.Path, tokenizer: ChatTokenizer) -> OpenedModel:
  decoder_config = dataclasses.replace(
    read_config(folder, tokenizer.num_ids), **session.config.model.formats
  )
  return OpenedModel(folder, tokenizer, decoder_config)


def _check_fits(session: Session, named: OpenedModel) -> None:
  """Raises InputError if a model that was named is not the run's, as far as the run can tell.

  A run that neither keeps its model's files nor has its model here knows the shapes of its
  parameters alone, which are compared as they are read.
  """
  try:
    folder = _folder_of_run(session)
    of_run = _read(session, folder, load_tokenizer(folder))
  except InputError:
    return
  difference = shape_difference(of_run.decoder_config, named.decoder_config)
  difference = difference or vocabulary_difference(of_run.tokenizer, named.tokenizer)
  if difference:
    raise InputError(
      f'{named.folder} does not fit {session.workdir.root}: {difference}. Name the model that the '
      'run was trained from, or none.'
    )


def _folder_of_run(session: Session) -> pathlib.Path:
  """The folder of tokenizer and config.json that a run has without --model."""
  if has_kept(session):
    return session.workdir.model_files
  return source_folder(dataclasses.replace(session, model=''))


def _shown(names: Sequence[str]) -> str:
  shown, num_more = ', '.join(names[:_MAX_SHOWN]), len(names) - _MAX_SHOWN
  return f'{shown} and {num_more} more' if num_more > 0 else shown


def _existing(folder: pathlib.Path, name: str, hint: str = '') -> pathlib.Path:
  if not folder.is_dir():
    raise InputError(f'No folder {str(folder)!r} ({name}).{hint}')
  return folder
