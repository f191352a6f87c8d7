"""Pages of trees in a real browser: pictures for people, and what only a browser can tell."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from made_tree import made_row
from matplotlib import image

from ds_jax.report.tree_page import overview_page, tree_page

BROWSER = next(filter(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')), None)

pytestmark = [
  pytest.mark.long,
  pytest.mark.skipif(BROWSER is None, reason='Chromium is not installed (Debian: chromium)'),
]

WIDTHS = {'wide': (1400, 1000), 'narrow': (500, 900)}  # pixels; headless windows are 500 wide


def screenshot(page, picture, *, size, scheme):
  """Returns the pixels `[height, width, 3]` in [0, 1] of a page; its picture stays beside it."""
  schemes = {'dark': 0, 'light': 1}
  argv = [
    BROWSER,
    '--headless=new',
    '--no-sandbox',  # containers run as root
    '--disable-gpu',
    '--hide-scrollbars',
    f'--user-data-dir={picture.parent / "profile"}',
    f'--blink-settings=preferredColorScheme={schemes[scheme]}',
    f'--window-size={size[0]},{size[1]}',
    f'--screenshot={picture}',
    page.as_uri(),
  ]
  subprocess.run(argv, check=True, capture_output=True, timeout=300)
  return image.imread(picture)[..., :3]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('num_nodes', [60, 2001])
def test_a_tree_in_a_browser(tmp_path, num_nodes, width, scheme):
  page = tmp_path / 'tree.html'
  page.write_text(tree_page(made_row(num_nodes)))
  picture = tmp_path / f'tree_{num_nodes}_{width}_{scheme}.png'
  pixels = screenshot(page, picture, size=WIDTHS[width], scheme=scheme)
  print(f'picture: {picture}')
  assert (np.median(pixels) > 0.9) if scheme == 'light' else (np.median(pixels) < 0.2)
  ink = np.abs(pixels - np.median(pixels)).max(-1) > 0.2
  assert ink.mean() > 0.01  # text is there
  # Values have colours: some pixels are orange or blue.
  assert (np.ptp(pixels, axis=-1) > 0.2).mean() > 1e-3


def test_the_overview_in_a_browser(tmp_path):
  page = tmp_path / 'trees.html'
  rows = [made_row(n) for n in range(40, 240, 10)]
  page.write_text(overview_page(rows, ['trees/1.html'] * len(rows), title='Trees'))
  pixels = screenshot(page, tmp_path / 'trees.png', size=WIDTHS['wide'], scheme='light')
  assert (np.abs(pixels - np.median(pixels)).max(-1) > 0.2).mean() > 0.01
