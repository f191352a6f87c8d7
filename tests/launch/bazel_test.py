"""A real Bazel reads BUILD, builds a library and runs a cheap test with it, without a network.

Rules for other languages would be downloaded; empty repositories stand in for them. Debian's
package is called bazel-bootstrap.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BAZEL = shutil.which('bazel') or shutil.which('bazelisk')
pytestmark = [
  pytest.mark.long,
  pytest.mark.skipif(BAZEL is None, reason='Bazel is not installed (Debian: bazel-bootstrap)'),
]

# Repository: its files. `@rules_python` hands on the native rules.
STUBS = {
  'rules_python': {
    'python/BUILD': '',
    'python/defs.bzl': ''.join(
      f'{rule} = native.{rule}\n' for rule in ('py_binary', 'py_library', 'py_test')
    ),
  },
  'rules_cc': {
    'BUILD': '',
    'cc/BUILD': '',
    'cc/defs.bzl': ''.join(
      f'{rule} = native.{rule}\n'
      for rule in (
        'cc_binary',
        'cc_import',
        'cc_library',
        'cc_proto_library',
        'cc_test',
        'cc_toolchain',
        'cc_toolchain_suite',
        'fdo_prefetch_hints',
        'fdo_profile',
        'objc_import',
        'objc_library',
      )
    ),
  },
  'rules_java': {
    'BUILD': '',
    'java/BUILD': '',
    'java/defs.bzl': ''.join(
      f'{rule} = native.{rule}\n'
      for rule in (
        'java_binary',
        'java_import',
        'java_library',
        'java_plugin',
        'java_proto_library',
        'java_runtime',
        'java_test',
        'java_toolchain',
        'java_lite_proto_library',
        'java_package_configuration',
      )
    ),
  },
  'remote_coverage_tools': {
    'BUILD': (
      'filegroup(name = "coverage_report_generator", srcs = ["none"], '
      'visibility = ["//visibility:public"])\n'
    ),
    'none': '',
  },
  'rules_proto': {
    'BUILD': '',
    'proto/BUILD': '',
    'proto/defs.bzl': 'proto_library = native.proto_library\n',
  },
}


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
  """A workspace of links to the checkout, with the stand-ins."""
  root = tmp_path_factory.mktemp('bazel')
  folder = root / 'workspace'
  folder.mkdir()
  for path in ROOT.iterdir():
    if path.name not in ('.git', '.venv', '.pytest_cache', '.ruff_cache', 'runs'):
      (folder / path.name).symlink_to(path)
  lines = ['workspace(name = "ds_jax")']
  for name, files in STUBS.items():
    files = files | {'WORKSPACE': ''}
    for path, text in files.items():
      (root / name / path).parent.mkdir(parents=True, exist_ok=True)
      (root / name / path).write_text(text)
    lines.append(f'local_repository(name = "{name}", path = "{root / name}")')
  (folder / 'WORKSPACE').write_text('\n'.join(lines) + '\n')
  yield folder
  bazel(folder, 'shutdown')
  subprocess.run(['chmod', '-R', 'u+w', root], check=False)  # its outputs are read-only


def bazel(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [BAZEL, f'--output_user_root={folder.parent}/output', *arguments],
    cwd=folder,
    text=True,
    capture_output=True,
    timeout=300,
    env=os.environ | {'USE_BAZEL_VERSION': ''},
  )


def test_every_target_is_known(workspace):
  done = bazel(workspace, 'query', '--noshow_progress', 'kind("py_.*", //:all)')
  assert done.returncode == 0, done.stderr
  names = done.stdout.split()
  assert {'//:search', '//:ds-jax', '//:tests/imports_test'} <= set(names)


def test_a_library_builds_and_a_test_passes(workspace):
  path = f'{Path(sys.executable).parent}:/usr/bin:/bin'
  done = bazel(
    workspace,
    'test',
    '//:checks',
    '//:tests/build_file_test',
    f'--test_env=PATH={path}',
    '--test_env=JAX_PLATFORMS=cpu',
    '--test_output=errors',
    f'--action_env=PATH={path}',
  )
  assert done.returncode == 0, done.stdout + done.stderr
