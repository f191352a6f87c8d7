"""Words that a tokenizer does not know: the model would see them all as one and the same."""

from __future__ import annotations

from ds_jax.data.prompts import ChatTokenizer


def unknown_words(text: str, tokenizer: ChatTokenizer) -> list[str]:
  """Finds the words of a prompt that become the tokenizer's unknown token.

  Args:
    text: the user message.
    tokenizer: those without an unknown token know every text (byte-level: Qwen, Llama, gpt2).

  Returns:
    The words in order, each once; the whole text where no single word is to blame.
  """
  unknown_id = tokenizer.tokenizer.unk_token_id
  ids = tokenizer.tokenizer(text, add_special_tokens=False)['input_ids']
  if unknown_id is None or unknown_id not in ids:
    return []
  unknown = []
  for word in dict.fromkeys(text.split()):
    ids = tokenizer.tokenizer(word, add_special_tokens=False)['input_ids']
    if unknown_id in ids:
      unknown.append(word)
  return unknown or [text]
