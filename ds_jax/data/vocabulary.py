"""Words that a tokenizer does not know: the model would see them all as one and the same."""

from __future__ import annotations

from ds_jax.data.prompts import ChatTokenizer


def unknown_words(text: str, tokenizer: ChatTokenizer) -> list[str]:
  """Words of a prompt that become the tokenizer's unknown token; none where it has no such token.

  Args:
    text: the user message.
    tokenizer: byte-level tokenizers (Qwen, Llama, gpt2) know every text.

  Returns:
    The words in order, each once; the whole text where no single word is to blame.
  """
  unknown_id = tokenizer.tokenizer.unk_token_id
  if unknown_id is None or unknown_id not in tokenizer.encode_prompt(text):
    return []
  encode = lambda word: tokenizer.tokenizer(word, add_special_tokens=False)['input_ids']
  words = [word for word in dict.fromkeys(text.split()) if unknown_id in encode(word)]
  return words or [text]
