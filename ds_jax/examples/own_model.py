"""Tree search with a language model that is not ours: any that transformers reads, on torch.

python -m ds_jax.examples.own_model HuggingFaceTB/SmolLM2-135M-Instruct    (needs torch)
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from ds_jax import Problem, load_tokenizer
from ds_jax.config import SearchConfig, VerifyConfig
from ds_jax.report.inspect import format_tree
from ds_jax.search.any_model import Sample, search_with
from ds_jax.verify.pool import VerifierPool

SEARCH = SearchConfig(
  num_slots=1, width=4, max_depth=3, segment_length=16, num_trajectories=4, max_expansions=8
)
PROBLEM = Problem('sum', 'What is 17 + 25? Answer with the number.', '42')


def main(name: str) -> None:
  model, tokenizer = AutoModelForCausalLM.from_pretrained(name), load_tokenizer(name)

  @torch.inference_mode()
  def sample(path: np.ndarray, count: int, seed: int) -> Sample:
    torch.manual_seed(seed)
    paths, logprobs, entropies = torch.tensor(path).expand(count, -1), [], []
    for _ in range(SEARCH.segment_length):
      policy = model(paths, use_cache=False).logits[:, -1].float().log_softmax(-1)
      token = policy.exp().multinomial(1)
      paths = torch.cat([paths, token], 1)
      logprobs.append(policy.gather(1, token)[:, 0])
      entropies.append(-(policy.exp() * policy).sum(1))
    return Sample(paths[:, len(path) :], torch.stack(logprobs, 1), torch.stack(entropies, 1))

  with VerifierPool(VerifyConfig(verifier='last_number')) as pool:
    (tree,) = search_with(sample, tokenizer, pool.verify, problems=[PROBLEM], config=SEARCH)
  print(format_tree(tree, tokenizer.decode_response))


if __name__ == '__main__':
  main(sys.argv[1])
