"""A file system that refuses to rename folders which hold something, as gcsfuse does by default.

In this process by `refuse_renames`, in another one as its `sitecustomize`: see `environment_of`.
"""

from __future__ import annotations

import errno
import os
import pathlib


def refuse_renames(folder, code=errno.EMFILE):
  """`os.rename` and `os.replace` that raise for folders which hold something, below `folder`.

  EMFILE is what gcsfuse says where a folder has more objects than its rename-dir-limit, which is 0.
  """
  below = os.path.join(os.path.realpath(folder), '')

  def refusing(rename):
    def refuse(source, target, *arguments, **fields):
      path = os.path.join(os.path.realpath(source), '')
      if path.startswith(below) and os.path.isdir(source) and os.listdir(source):
        raise OSError(code, os.strerror(code), os.fspath(source), None, os.fspath(target))
      return rename(source, target, *arguments, **fields)

    return refuse

  return refusing(os.rename), refusing(os.replace)


def install(patch, folder, code=errno.EMFILE):
  """Refuses them until the monkeypatch is undone."""
  rename, replace = refuse_renames(folder, code)
  patch.setattr(os, 'rename', rename)
  patch.setattr(os, 'replace', replace)


def environment_of(site: pathlib.Path, folder: pathlib.Path, root: pathlib.Path) -> dict[str, str]:
  """Variables of a Python process that refuses them; `site` is an empty folder."""
  (site / 'sitecustomize.py').write_text(
    f'import os, fake_mount\nos.rename, os.replace = fake_mount.refuse_renames({str(folder)!r})\n'
  )
  return {'PYTHONPATH': os.pathsep.join(map(str, (site, root, root / 'tests')))}
