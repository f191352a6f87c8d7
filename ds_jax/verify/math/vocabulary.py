"""The words that answers are made of: functions, units, currencies, numbers, nouns, phrases."""

from __future__ import annotations

_TRIG = 'sin cos tan cot sec csc'.split()
_HYPERBOLIC = [f'{name}h' for name in _TRIG]
INVERSES = {name: f'arc{name}' for name in (*_TRIG, *_HYPERBOLIC)}
# Names as they are written without a backslash -> the command.
FUNCTION_NAMES = {
  **{
    name: rf'\{name}'
    for name in (
      *INVERSES,
      *INVERSES.values(),
      *'sqrt exp floor ceil round ln log lg atan2 gcd lcm max min cis sgn det dim deg ker '
      'arg Re Im mod binom cbrt nCr nPr pi infty theta alpha beta gamma lambda'.split(),
    )
  },
  **{f'a{name}': rf'\{inverse}' for name, inverse in INVERSES.items()},
  **{f'ar{name}': rf'\arc{name}' for name in _HYPERBOLIC},
  'abs': r'\abs',
  'nCr': r'\binom',
  'arctg': r'\arctan',
  'tg': r'\tan',
  'ctg': r'\cot',
  'sign': r'\sgn',
  'GCD': r'\gcd',
  'LCM': r'\lcm',
  'infinity': r'\infty',
  'Infinity': r'\infty',
  'inf': r'\infty',
  'oo': r'\infty',
}

CONNECTIVES = frozenset(('and', 'or'))
TRUE, FALSE = ('yes', 'true'), ('no', 'false')
# Words of three letters that could be a product of letters.
_SHORT_WORDS = frozenset(
  (
    'act all and any apr are art aug bag bar but can cat cup day dec dne dog egg feb few for fri '
    'get got had has his how hrs its jan jul jun lbs let man map mar mat may men mon mph new nil '
    'non nor not nov now oct odd off one our out pct per sat sep set she six sum sun ten the thu '
    'too tue two was way wed who why yes yet '
  ).split()
)


def is_word(run: str, is_text: bool) -> bool:
  """Whether a run of letters is a word rather than a product of letters or a symbol."""
  if len(run) < 2:
    return False
  lower = run.casefold()
  if len(run) == 2 and not is_text:
    return lower in ('or', 'if', 'is', 'of', 'no', 'to', 'lb', 'oz')
  if lower in _SHORT_WORDS or lower in UNIT_WORDS:
    return True
  if is_text:
    return True
  if len(run) == 3:
    return bool(set('eiou') & set(lower)) and not run.isupper() and run not in ('bei',)
  return len(run) > 3 and not (run.isupper() and len(run) < 7)


NUMBER_WORDS = {
  name: i
  for i, name in enumerate(
    'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen '
    'fifteen sixteen seventeen eighteen nineteen twenty'.split()
  )
}
NUMBER_WORDS |= {
  name: 10 * i
  for i, name in enumerate('thirty forty fifty sixty seventy eighty ninety'.split(), start=3)
}
_PARTS = 'half third fourth fifth sixth seventh eighth ninth tenth'.split()
FRACTION_WORDS = {name: i for i, name in enumerate(_PARTS, start=2)}
FRACTION_WORDS |= {f'{name}s': value for name, value in FRACTION_WORDS.items()}
FRACTION_WORDS |= {'halves': 2, 'quarter': 4, 'quarters': 4}
MAGNITUDES = {
  'dozen': 12,
  'hundred': 100,
  'thousand': 10**3,
  'million': 10**6,
  'billion': 10**9,
  'trillion': 10**12,
}
MAGNITUDES |= {f'{name}s': value for name, value in MAGNITUDES.items()}

# Behind a number these say what is counted, and not how much it is.
_NOUNS = (
  'animal answer apartment apple arrangement atom baby bacterium bag ball balloon banana bar '
  'barrel base basket bead bean bee bicycle bike bill bird block boat book bottle bowl box boy '
  'bracelet branch brick brother bucket building bulb bunch bus bushel button cake camel can '
  'candle candy car card carrot case cat cell chair cherry chicken child chocolate choice '
  'circle class classroom clown coconut coin color colour column combination composer '
  'configuration contestant cookie corner cow crate crayon cube cup cupcake customer cycle '
  'diagonal digit dime dish distribution divisor dog doll donut door dot doughnut dress drop '
  'duck edge egg element employee engine envelope equation event example face factor family fan '
  'farm fish flag flower fold folder friend frog function game gift girl glass goal goat '
  'goldfish grade grandchild grape graph group guess guest guinea handshake hat head horse '
  'hotdog house human integer intersection invitation item jar jellybean jump kid kids kind '
  'king kitten lamp lap leaf leg lemon length letter level light line lollipop machine man '
  'mango marble mark marker match meal medal member menu message milkshake mistake molecule '
  'monkey mouse move muffin multiple necklace nickel node number onion orange order ordering '
  'outcome outfit package packet page pail pair pancake paper parcel parent part partition '
  'passenger path pattern peach peanut pear pen pencil penny people pepper permutation person '
  'pet petal photo pick picture pie piece pig pigs pizza plane plant plate player plum point '
  'pole polynomial position possibility poster potato present prime prize problem pupil puppy '
  'puzzle question rabbit ratio rectangle region ribbon ring rod role root rose round '
  'row sack sandwich school seat section seed selection sequence series set shape sheep sheet '
  'shelf shell shirt shoe shop shot sibling side sister slice snake sock solution song spoon '
  'spot square stair stamp star state step sticker stone story straw strawberry street string '
  'stripe student stuff subset sum sweet table tail tank task teacher team tent term test '
  'ticket tile time tomato top total tour tournament toy train tray tree triangle trip truck '
  'turn type unit value vase vegetable vehicle vertex video visitor vote voter walk wall '
  'watermelon way week wheel win window wolf woman word work worker world zebra '
)
_IRREGULAR = {
  'children': 'child',
  'people': 'person',
  'men': 'man',
  'women': 'woman',
  'vertices': 'vertex',
  'mice': 'mouse',
  'feet': 'foot',
  'inches': 'inch',
  'leaves': 'leaf',
  'shelves': 'shelf',
  'wolves': 'wolf',
  'bacteria': 'bacterium',
  'pennies': 'penny',
  'centuries': 'century',
  'hertz': 'hertz',
  'gas': 'gas',
  'celsius': 'celsius',
  'siemens': 'siemens',
  'lbs': 'lb',
  'hrs': 'hr',
  'mins': 'min',
  'secs': 'sec',
}
# Adjectives and small words around such nouns.
MODIFIERS = frozenset(
  'a an the of in different distinct integer integral real positive possible such '
  'total unique whole ordered unordered nonzero valid '
  'natural equal identical new remaining left altogether overall '
  'per each every any standard common lattice simple game full extra additional consecutive '
  'ways'.split()
)


NOUNS = frozenset(_NOUNS.split())


def singular(word: str) -> str:
  """The singular of an English noun, in lower case."""
  word = word.casefold()
  if word in _IRREGULAR:
    return _IRREGULAR[word]
  if word.endswith('s') and word[:-1] in NOUNS:
    return word[:-1]
  if word.endswith('ies') and len(word) > 4:
    return word[:-3] + 'y'
  if word.endswith(('ches', 'shes', 'sses', 'xes', 'toes')):
    return word[:-2]
  return word[:-1] if word.endswith('s') and not word.endswith('ss') and len(word) > 2 else word


_MONTHS = 'january february march april may june july august september october november december'
MONTHS = {name: name for name in _MONTHS.split()} | {name[:3]: name for name in _MONTHS.split()}
# What may stand before words without changing what they name.
WORD_OPENINGS = (('there', 'are'), ('there', 'is'), ('it', 'is'), ('on',), ('in',), ('at',))
ORDINAL_ENDINGS = frozenset(('st', 'nd', 'rd', 'th'))

# Phrases that stand for another one; keys and values are joined words in lower case.
PHRASES = {
  'dne': 'does not exist',
  'doesnt exist': 'does not exist',
  'limit does not exist': 'does not exist',
  'positive infinity': r'\infty',
  'plus infinity': r'\infty',
  'negative infinity': r'-\infty',
  'minus infinity': r'-\infty',
  'all real numbers': r'\mathbb{R}',
  'all reals': r'\mathbb{R}',
  'real numbers': r'\mathbb{R}',
  'reals': r'\mathbb{R}',
  **dict.fromkeys(
    ('all real number', 'all real x', 'all real values', 'any real number', 'every real number'),
    r'\mathbb{R}',
  ),
  'set of real numbers': r'\mathbb{R}',
  'set of all real numbers': r'\mathbb{R}',
  'all integers': r'\mathbb{Z}',
  'integers': r'\mathbb{Z}',
  'set of integers': r'\mathbb{Z}',
  'all rational numbers': r'\mathbb{Q}',
  'rational numbers': r'\mathbb{Q}',
  'all complex numbers': r'\mathbb{C}',
  'complex numbers': r'\mathbb{C}',
  'all natural numbers': r'\mathbb{N}',
  'natural numbers': r'\mathbb{N}',
  'empty set': r'\emptyset',
}
ARTICLES = frozenset(('a', 'an', 'the'))
# What may stand before an answer without being part of it.
_SUBJECTS = 'answer value result solution total number probability'
LEADS = tuple(
  tuple(lead.split())
  for lead in (
    'there are',
    'there is',
    'we have',
    'we get',
    'it is',
    'answer',
    'final answer',
    'the answer',
    'the final answer',
    'solution',
    'the solution',
    'result',
    *(
      f'{the}{subject} {verb}'
      for the in ('', 'the ', 'our ', 'the correct ', 'the final ', 'final ', 'correct ')
      for subject in _SUBJECTS.split()
      for verb in ('is', 'equals', 'are')
    ),
  )
)
_UNIT_RAW = (
  'meter metre gram second minute hour day week month year fortnight century decade inch foot yard '
  'mile ounce pound ton tonne liter litre gallon degree radian dollar cent euro rupee yuan yen '
  'rouble ruble pence percent percentage pct watt volt newton ohm kelvin celsius fahrenheit mole '
  'joule ampere amp coulomb farad tesla weber henry hertz pascal lumen lux becquerel hectare acre '
  'pint quart knot byte bit atmosphere calorie gauss erg dyne angstrom parsec candela siemens mph '
  'kph hr sec min ft yd mi lb oz usd eur gbp inr jpy cny square cubic sq cu rpm feet inches '
  'franc peso won buck micron unit rad deg'
).split()
UNIT_WORDS = frozenset([*_UNIT_RAW, *(f'{word}s' for word in _UNIT_RAW)]) - {
  'min',
  'deg',
  'unit',
  'units',
  'square',
  'squares',
  'won',
} | {'hours', 'lbs', 'miles'}
