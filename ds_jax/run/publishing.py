"""An export that is uploaded as well: what can be refused is refused before its work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import best_metric
from ds_jax.hub import is_hub_name
from ds_jax.model.huggingface.config import UNFINISHED
from ds_jax.run.exporting import export
from ds_jax.run.model_card import Exported, exported_in
from ds_jax.run.restoring import step_of
from ds_jax.run.session import Session, of_run
from ds_jax.run.uploading import check_access, check_name, upload
from ds_jax.run.workdir import Workdir


def publish(
  session: Session,
  *,
  checkpoint: str,
  output: str,
  name: str = '',
  dtype: str | None = None,
  adapter: bool = False,
  is_public: bool = False,
) -> dict[str, Any]:
  """Writes parameters of a run as a Hugging Face folder and, under a name, uploads it.

  A folder that holds these very parameters already is uploaded as it is: the same command goes on
  after an upload that failed.

  Args:
    session: as for `export`. Of several processes the first asks the hub and uploads.
    checkpoint: the run's workdir.
    output: the folder to write.
    name: on the hub, MODEL or OWNER/MODEL; '': nothing is uploaded.
    dtype: as for `export`.
    adapter: likewise.
    is_public: whether a repository that is made for it is; one that exists stays as it is.

  Returns:
    What `export` returns, and the address of the repository where there is one.

  Raises:
    InputError: if the hub refuses the name or this user, or `export` refuses the rest; before any
      work.
    CannotWrite: if the hub cannot be reached, or the upload fails; what was written stays.
  """
  what = dict(checkpoint=checkpoint, output=output, dtype=dtype, adapter=adapter)
  if not name:
    return export(session, **what)
  check_name(name)
  workdir, folder = Workdir(Path(checkpoint)), Path(output).expanduser()
  run = of_run(session, workdir)
  there = _step_there(run, folder, dtype=dtype or 'float32', adapter=adapter)
  name = check_access(name, session.team)
  if adapter:
    _note_base_here(run)
  if there is None:
    summary = export(session, **what, may_download=True)
  else:
    session.progress.note(f'{folder} holds the parameters of step {there} already.')
    summary = {'status': 'done', 'output': str(folder), 'step': there}
  session.progress.note(f'Uploading {folder} to {name} ...')
  message = f'Step {summary["step"]} of {workdir.root.resolve().name}, by ds_jax'
  address = upload(folder, name, message=message, is_public=is_public, team=session.team)
  session.progress.note(f'Uploaded: {address}')
  return summary | {'address': address}


def _note_base_here(run: Session) -> None:
  """Says so where adapters will name a base model that nobody else finds under that name."""
  path = run.model or run.config.model.path or str(run.workdir.warmstart.resolve())
  if not is_hub_name(path):
    run.progress.note(
      f'adapter_config.json names the base model as it is called here, {path}; upload that model, '
      'too, and tell peft its name there.'
    )


def _step_there(run: Session, folder: Path, *, dtype: str, adapter: bool) -> int | None:
  """The step of the parameters if a folder has what is to be written; None: it has no export.

  Raises:
    InputError: if it has another one.
  """
  there = exported_in(folder)
  if there is None or (folder / UNFINISHED).exists():
    return None
  metric = best_metric(run.config)
  step = step_of(run.workdir, run.step, progress=run.progress, metric=metric)
  wanted = Exported.of(run.config, step=step, dtype=dtype, adapter=adapter)
  if there != wanted:
    raise InputError(
      f'{folder} holds another export ({_described(there)}) than this one ({_described(wanted)}); '
      'choose another --output, or name what it holds.'
    )
  return step


def _described(exported: Exported) -> str:
  what = ', adapters' if exported.adapter else ''
  return f'step {exported.step}, {exported.dtype}{what}, settings {exported.settings}'
