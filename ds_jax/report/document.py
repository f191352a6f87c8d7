"""The frame of an HTML page: no script, no request; what may apply is named by its policy."""

from __future__ import annotations

from collections.abc import Sequence

from ds_jax.report.text import escaped


def html_document(
  title: str, body: str, *, style: str, policy: str, head: Sequence[str] = (), css_class: str = ''
) -> str:
  """Returns a whole page.

  Args:
    title: text.
    body: HTML.
    style: CSS.
    policy: the content security policy.
    head: further elements of the head, HTML.
    css_class: of the body; '': none.
  """
  further = ''.join(f'{element}\n' for element in head)
  attributes = f' class="{css_class}"' if css_class else ''
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{further}<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body{attributes}>
{body}
</body>
</html>
"""
