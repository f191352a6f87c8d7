r"""Whether two mathematical answers are equal: one reader, one comparison, no algebra system.

    text --tokens--> tokens --reader--> structure \
                                                    compare --> (equal?, stage)
    text --tokens--> tokens --reader--> structure /

* `tokens`: one spelling. Unicode, layout and synonyms become LaTeX tokens; words stay words.
* `reader`: tokens to a structure (`structures`), from the outside to the inside: lists
  (`token_lists`), words (`prose`), `clauses`, `numerals`, quantities (`quantity_reader`).
  Expressions are trees (`expressions`, `expression_reader`), units are powers of bases (`units`);
  the words that answers are made of are in `vocabulary`. Nothing is dropped in silence: what is
  not understood makes the whole answer `Unread`, which is equal to its own spelling only.
* `compare`: the stages in their order (`compare.STAGES`), written down by what they compare in
  `stages`. The first that applies decides, and its name is part of the result. Parts of answers go
  through the same stages (`judge`).
* At the bottom expressions are compared by value (`equality`): exact rationals, enclosures of
  growing precision (`enclosures`), functions (`function_equality`) at points that nobody can know
  beforehand (`points`) and around their kinks (`kinks`); sets of real numbers by membership
  (`regions`), functions by cases number by number (`piecewise`). `values` has the value of an
  expression at a point: `balls`, `evaluation`, `arithmetic`, `functions`, `series`.

Equality is *shown* or it is not: what no stage shows is wrong. The words are meant literally for
rationals and for different numbers. Equal irrational numbers and equal functions are shown with a
margin that `enclosures` and `points` state. Limits are taken from two points near them, which is no
proof.

Answers are hostile text. All regular expressions are linear, nesting and lengths are bounded, and a
comparison ends when its budget of work is spent (`balls.Work`), within 0.2 s. Nothing evaluates
text, and no algebra system is imported.

To find the stage that decides a pair:

    >>> from ds_jax.verify import grade_math
    >>> grade_math.decide('5', '6 = 5').stage
    'a false statement'
"""
