"""Chat templates: what transformers makes of them, and what is wrong with them, by name."""

from __future__ import annotations

import dataclasses
import datetime
import json

import pytest
import tokenizer_folders as folders

from ds_jax.checks import InputError
from ds_jax.config import DataConfig, config_from
from ds_jax.data.chat_template import ChatTemplate
from ds_jax.data.prompts import load_tokenizer, prepare_prompts
from ds_jax.types import Message, Problem

DAY = datetime.date(2026, 11, 22)
CHAT = (
  Message('system', 'Be  brief.'),
  Message('user', 'What is "2+2" < 5?\n'),
  Message('assistant', '<think>easy</think>4'),
  Message('user', 'What is 1+1?'),
)
CONTENT = "{{ messages[-1]['content'] }}"

# In the manner of the templates of models that people bring, in words of our own.
TEMPLATES = {
  'chatml': folders.CHATML,
  'default system': (
    "{%- if messages[0]['role'] != 'system' %}{{- '<sys>You help.</sys>' }}{%- endif %}"
    "{%- for m in messages %}{{- '<' + m.role + '>' + m.content + '</' + m.role + '>\\n' }}"
    "{%- endfor %}\n{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}\n"
  ),
  'bos, trim, break': (
    '{{ bos_token }}{% for m in messages %}{% if loop.index0 > 9 %}{% break %}{% endif %}'
    '{% if m.role == "system" %}{% continue %}{% endif %}[{{ m.content | trim }}]{% endfor %}'
  ),
  'reasoning': (
    '{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == "user" %}'
    '{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}'
    '{% set content = m.content.split("</think>")[-1] if m.role == "assistant" else m.content %}'
    '{{ m.role }}{{ ns.last }}: {{ content.lstrip("\\n") }}\n{% endfor %}'
    '{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}'
  ),
  'json': '{{ messages | tojson }} {{ messages | tojson(indent=1) }} {{ tools | tojson }}',
  'macro': '{% macro say(m) -%}  {{ m.content }}\n  {%- endmacro %}{{ say(messages[-1]) }} .',
  'generation': (
    '{% for m in messages %}{% set x = m.content %}{% generation %}{{ x }}{% set x = 1 %}'
    '{% endgeneration %}{{ x }}{% endfor %}'
  ),
  'undefined': f'{CONTENT}{{{{ nothing }}}}{{% if documents %}}d{{% endif %}}{{{{ pad_token }}}}',
  'filters': '{{ messages | map(attribute="content") | join("|") }}{{ messages | length }}'
  '{{ messages | selectattr("role", "equalto", "user") | list | length }}',
  'slices': '{% for m in messages[1:] %}{{ loop.first }}{{ m["content"][:3] }}{% endfor %}'
  '{{ "%s" | format(messages[-1].content) }}{{ messages[-1].content.strip() ~ "!" }}',
}


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
  import transformers

  folder = folders.write_folder(tmp_path_factory.mktemp('theirs'), folders.byte_level())
  return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize('arguments', [{}, {'enable_thinking': False}])
@pytest.mark.parametrize('name', TEMPLATES)
def test_rendered_as_by_transformers(theirs, name, arguments):
  messages = [message._asdict() for message in CHAT]
  expected = theirs.apply_chat_template(
    messages,
    chat_template=TEMPLATES[name],
    add_generation_prompt=True,
    tokenize=False,
    **arguments,
  )
  template = ChatTemplate(
    TEMPLATES[name], 'x', special_tokens=theirs.special_tokens_map, arguments=arguments
  )
  assert template.render(CHAT) == expected


@pytest.mark.parametrize(
  'name', ['qwen2.5', 'phi-3-mini', 'deepseek-r1-distill-qwen-reconstructed']
)
def test_real_templates_as_by_transformers(shared, theirs, name):
  file = shared / 'data/tokenizers' / name / 'tokenizer_config.json'
  if not file.exists():
    pytest.skip(f'no real tokenizer: {file} does not exist')
  text = json.loads(file.read_text())['chat_template']
  for chat in (CHAT, CHAT[1:], CHAT[-1:]):
    expected = theirs.apply_chat_template(
      [message._asdict() for message in chat],
      chat_template=text,
      add_generation_prompt=True,
      tokenize=False,
    )
    tokens = theirs.special_tokens_map
    assert ChatTemplate(text, name, special_tokens=tokens).render(chat) == expected


# The date.

LLAMA_DATE = (
  '{% if not date_string is defined %}{% if strftime_now is defined %}'
  '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "26 Jul 2024" %}'
  '{% endif %}{% endif %}'
)


OWN_DATE = '{% if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}'


@pytest.mark.parametrize(
  'text, asks, expected',
  [
    ('{{ strftime_now("%d %b %Y") }}', True, '22 Nov 2026'),
    ('{{ strftime_now("%Y-%m-%d %H:%M") }}', True, '2026-11-22 00:00'),
    (LLAMA_DATE + '{{ date_string }}', True, '22 Nov 2026'),
    ('{{ date_string }}', True, '22 Nov 2026'),
    (OWN_DATE + '{{ date_string }}', False, '26 Jul 2024'),
    ('{{ date_string | default("never") }}', False, 'never'),
    ('{% if date_string is defined %}{{ date_string }}{% endif %}-', False, '-'),
    (CONTENT, False, 'What is 1+1?'),
  ],
)
def test_a_template_gets_the_day_it_is_given(text, asks, expected):
  template = ChatTemplate(text, 'x', date=DAY)
  assert template.asks_for_date == asks
  assert template.render(CHAT) == expected


def test_a_date_among_the_arguments_wins():
  template = ChatTemplate(LLAMA_DATE + '{{ date_string }}', 'x', {}, {'date_string': 'today'}, DAY)
  assert template.render(CHAT) == 'today'


# What is wrong with a template.


def loaded(folder, template, settings=None, **fields):
  folder = folders.write_folder(folder, folders.byte_level(), chat_template=template, **fields)
  return load_tokenizer(folder, settings, DAY)


@pytest.mark.parametrize(
  'template, reason',
  [
    ('{{ raise_exception("System message required") }}', 'fails: System message required (line 1'),
    ('\n{{ nothing.at.all }}', "fails: 'nothing' is undefined (line 2"),
    ('{{ messages[0].content + 1 }}', 'fails: can only concatenate str'),
    ('{{ messages[7].content }}', 'fails: list object has no element 7'),
    ('{% if %}', 'cannot be read: Expected an expression'),
    ('\n{% for m in messages %}', 'cannot be read: Unexpected end of template'),
    ('{% endfor %}', "cannot be read: Encountered unknown tag 'endfor'"),
    ('{{ x | nofilter }}', "cannot be read: No filter named 'nofilter'"),
    ('{% include "other" %}', 'fails: no loader'),
    ("{{ ''.__class__.__mro__ }}", 'is unsafe (line 1'),
    ('{{ messages.append(1) }}', "attribute 'append' of 'list' object is unsafe"),
    ('{% for i in range(10**9) %}x{% endfor %}', 'Range too big'),
    ('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'fails: it is nested too deeply'),
    (CONTENT + "{{ 'a' * 2000000 }}", 'makes 2,000,'),
  ],
)
def test_broken_templates_are_named_with_the_reason(template, reason):
  with pytest.raises(InputError) as e:
    ChatTemplate(template, 'The template of mine').render(CHAT)
  assert str(e.value).startswith('The template of mine ') and reason in str(e.value)


DOUBLING = (
  '{% set ns = namespace(x="aa") %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}'
)
OF_PARTS = (
  "{% for m in messages %}{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
  '{% endfor %}<|assistant|>'
)


@pytest.mark.parametrize(
  'template, reason',
  [
    ('{{ raise_exception("System message required") }}', 'fails: System message required'),
    ('{% if %}', 'cannot be read'),
    ("{{ 'a' * 10**10 }}", 'fails: it needs too much memory'),
    (DOUBLING, 'fails: it needs too much memory'),
    (OF_PARTS, 'drops or changes what user says.*Use a template for messages of text'),
    ('{{ messages[0].content[:20] }}', "drops or changes what user says: 'Which number"),
  ],
)
def test_a_tokenizer_with_a_broken_template(tmp_path, template, reason):
  tokenizer = loaded(tmp_path, template)
  assert tokenizer.stop_ids == (1,)  # an export needs no template
  with pytest.raises(InputError, match=f'The chat template of .*tokenizer_config.json {reason}'):
    tokenizer.encode_prompt('What is 1+1?')


def test_a_template_that_never_ends(tmp_path):
  many = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'
  tokenizer = loaded(tmp_path, many)
  with pytest.raises(InputError, match='does not come to an end'):
    tokenizer.encode_prompt('What is 1+1?')


def test_a_template_that_fails_for_one_problem_names_it(tmp_path):
  template = (
    "{{ messages[-1].content.replace('<image>', '') }}{% if 'bad' in messages[-1].content %}"
  )
  template += "{{ raise_exception('no') }}{% endif %}"
  tokenizer = loaded(tmp_path, template)
  good = Problem('good', 'What?', '1')
  for problem, reason in (
    (Problem('mine/3', 'a <image> b', '2'), 'Problem mine/3: .*drops or changes what user says'),
    (Problem('mine/4', 'bad', '2'), 'Problem mine/4: .*fails: no'),
  ):
    with pytest.raises(InputError, match=reason):
      prepare_prompts([good, problem], tokenizer, DataConfig())


@pytest.mark.parametrize(
  'template',
  [
    '{{ messages[-1].content | trim }}',
    "{{ messages[-1].content.split() | join(' ') }}",
    '{{ messages[-1].content | upper }}',
    '{{ messages[-1].content | e }}',
    '{{ messages | tojson }}',
  ],
)
def test_changes_of_spaces_capitals_and_escapes_are_fine(tmp_path, template):
  loaded(tmp_path, template).encode_prompt('  a\n\n b "c" <d> \\frac{é} ')


# Several templates, arguments, messages.

NAMED = [
  {'name': 'rag', 'template': 'RAG ' + CONTENT},
  {'name': 'tool_use', 'template': 'TOOL ' + CONTENT},
]


def words(tokenizer, problem):
  return tokenizer.tokenizer.decode(tokenizer.encode_problems([problem])[0])


def test_several_templates(tmp_path):
  problem = Problem('a', 'What is 1+1?', '2')
  with pytest.raises(InputError, match=r'several chat templates \(rag, tool_use\).*template_name'):
    loaded(tmp_path, NAMED).encode_prompt('x')
  settings = DataConfig(template_name='rag')
  assert words(loaded(tmp_path, NAMED, settings), problem) == 'RAG What is 1+1?'
  both = [*NAMED, {'name': 'default', 'template': CONTENT}]
  assert words(loaded(tmp_path, both), problem) == 'What is 1+1?'
  with pytest.raises(InputError, match="no chat template 'rga'.*Did you mean 'rag'.*default, rag"):
    loaded(tmp_path, both, DataConfig(template_name='rga')).encode_prompt('x')
  (tmp_path / 'chat_template.jinja').write_text('FILE ' + CONTENT)
  assert words(load_tokenizer(tmp_path), problem) == 'FILE What is 1+1?'
  (tmp_path / 'additional_chat_templates').mkdir()
  (tmp_path / 'additional_chat_templates/rag.jinja').write_text('{% if %}')
  assert words(load_tokenizer(tmp_path), problem) == 'FILE What is 1+1?'
  with pytest.raises(InputError, match=r"template 'rag' of .*additional_chat_templates/rag.jinja"):
    load_tokenizer(tmp_path, settings).encode_prompt('x')


def test_the_template_of_an_old_processor(tmp_path):
  tokenizer = loaded(tmp_path, None)
  assert tokenizer.template is None
  (tmp_path / 'chat_template.json').write_text(json.dumps({'chat_template': 'OLD ' + CONTENT}))
  assert words(load_tokenizer(tmp_path), Problem('a', 'x', '')) == 'OLD x'
  (tmp_path / 'chat_template.json').write_text('[]')
  with pytest.raises(InputError, match='chat_template.json'):
    load_tokenizer(tmp_path).encode_prompt('x')


def test_arguments(tmp_path):
  template = CONTENT + '{% if not (enable_thinking | default(true)) %}<think></think>{% endif %}'

  def with_arguments(**arguments):
    return config_from({'data': {'template_arguments': arguments}}).data

  problem = Problem('a', 'x', '')
  assert words(loaded(tmp_path, template), problem) == 'x'
  settings = with_arguments(enable_thinking=False)
  assert words(loaded(tmp_path, template, settings), problem) == 'x<think></think>'
  with pytest.raises(InputError, match=r"reads no variable 'thinking'.*It reads: enable_thinking"):
    loaded(tmp_path, template, with_arguments(thinking=False)).encode_prompt('x')
  with pytest.raises(InputError, match='template_arguments.messages: ds_jax gives'):
    loaded(tmp_path, template, with_arguments(messages='a')).encode_prompt('x')
  for bare in (with_arguments(a=1), DataConfig(template_name='rag')):
    with pytest.raises(InputError, match='has no chat template'):
      loaded(tmp_path / 'bare', None, bare).encode_prompt('x')


def test_system_messages_and_examples(tmp_path):
  settings = DataConfig(system_message='Be brief.')
  problem = Problem('a', 'x', '')
  chat = 'Be brief.</s>\n<|user|>\nx</s>\n<|assistant|>\n'
  assert words(loaded(tmp_path, folders.CHATML, settings), problem) == '<|system|>\n' + chat
  own = dataclasses.replace(problem, preamble=CHAT[:3])
  text = words(loaded(tmp_path, folders.CHATML, settings), own)
  assert 'Be  brief.' in text and 'Be brief.' not in text  # the row's own
  assert text.index('2+2') < text.index('<|assistant|>') < text.index('4</s>') < text.index('x</s>')
  examples = dataclasses.replace(problem, preamble=CHAT[1:3])
  text = words(loaded(tmp_path, folders.CHATML, settings), examples)
  assert text.startswith('<|system|>\nBe brief.</s>\n<|user|>\nWhat is "2+2"')
  with pytest.raises(InputError, match="drops .* what system says: 'Be brief.'.*place for it"):
    loaded(tmp_path, CONTENT, settings).encode_prompt('x')


def test_a_template_that_asks_for_a_system_message_takes_that_of_a_row(tmp_path):
  template = "{% if messages[0].role != 'system' %}{{ raise_exception('System message required') }}"
  tokenizer = loaded(tmp_path, template + '{% endif %}' + folders.CHATML)
  with pytest.raises(InputError, match='Problem a: .*required.*set data.system_message'):
    tokenizer.encode_problems([Problem('a', 'x', '')])
  assert 'Be  brief.' in words(tokenizer, Problem('a', 'x', '', preamble=CHAT[:1]))


def test_a_tokenizer_without_template_takes_one_text(tmp_path):
  for tokenizer, problem in (
    (loaded(tmp_path, None, DataConfig(system_message='s')), Problem('mine', 'x', '')),
    (loaded(tmp_path, None), Problem('mine', 'x', '', preamble=CHAT[:1])),
  ):
    with pytest.raises(InputError, match='Problem mine has several messages.*no chat template'):
      prepare_prompts([problem], tokenizer, DataConfig())


# Ends and beginnings.


@pytest.mark.parametrize('template', [None, CONTENT, '{{ bos_token }}' + CONTENT])
@pytest.mark.parametrize('bos, eos', [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize('name', ['LlamaTokenizerFast', 'PreTrainedTokenizerFast'])
def test_no_end_token_that_nobody_asked_for_and_one_beginning(tmp_path, name, bos, eos, template):
  folder = folders.write_folder(
    tmp_path,
    folders.byte_level(post_processor=folders.adds(bos, eos)),
    tokenizer_class=name,
    add_eos_token=eos,
    chat_template=template,
    config={'model_type': 'llama'},
  )
  tokenizer = load_tokenizer(folder)
  text = tokenizer.encode_response('What is 1+1?')[:-1].tolist()
  has_bos = bos if template is None else 'bos' in template
  assert tokenizer.encode_prompt('What is 1+1?').tolist() == [0] * has_bos + text
  assert tokenizer.encode_prompts(['a', 'What is 1+1?'])[1].tolist() == [0] * has_bos + text


def test_an_end_token_that_the_template_asks_for_stays(tmp_path):
  tokenizer = loaded(tmp_path, CONTENT + '{{ eos_token }}')
  assert tokenizer.encode_prompt('x')[-1] == 1
