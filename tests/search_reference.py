"""The search (arXiv:2509.25454) in plain Python, on objects; `s` is a SearchConfig."""

import math
import random


class Node:  # of a scripted model: text and verdict follow from the tag; only ends have a reward
  def __init__(self, tag, parent, seed, s):
    draw = random.Random(f'{seed}/{tag}')
    self.tag, self.parent, self.children, self.depth = tag, parent, [], tag.count('.')
    self.visits, self.q, self.is_collected, self.seed = 0, 0.0, False, seed
    self.tokens, self.logprob = (draw.randint(1, 4), -draw.random()) if parent else (0, 0.0)
    is_end = parent is not None and draw.random() < (1 if seed == 'all end' else 0.3)
    value_if_cut = s.incomplete_score if self.depth == s.max_depth else None
    self.reward = draw.choice([1, -1, -1]) if is_end else value_if_cut

  def path(self):  # to the root
    return [self, *(self.parent.path() if self.parent else [])]

  def walk(self):  # depth first
    return [self, *(node for child in self.children for node in child.walk())]

  def mean(self):
    return self.q / self.visits if self.visits else 0.0

  def uct(self, s):  # Eq. 6
    n, m = self.visits, self.parent.visits
    return self.mean() + s.lambda_uct * (math.sqrt(math.log(m) / n) if n and m else 0.0)

  def frontier_score(self, s):  # Eq. 7
    bonus = {'sqrt': math.sqrt(self.depth / s.max_depth), 'log': math.log(self.depth + 1)}
    quality = s.lambda1 * math.tanh(self.parent.mean()) + s.lambda4 * math.tanh(self.mean())
    unsure = 0.0 if s.uncertainty == 'off' else -s.lambda2 * self.logprob / self.tokens
    return quality + unsure + s.lambda3 * bonus.get(s.depth_bonus, self.depth)

  def uncertainty(self):  # of the path
    return -sum(node.logprob for node in self.path()) / sum(node.tokens for node in self.path())

  def backup(self, s):  # Eq. 4 and 5
    for node in self.path():
      credit = max((node.depth + 1) / (self.depth + 1), s.backup_threshold) * self.reward
      is_conflict = s.backup_rule == 'constrained' and node.q * self.reward < 0
      if self.reward > 0 or not is_conflict:
        node.q = credit + (0.0 if is_conflict else node.q)
      node.visits, self.is_collected = node.visits + 1, True
    return self


def choose_end(ends, s):  # section 3.2
  pool = [e for e in ends if e.reward == 1] or [e for e in ends if e.reward == -1] or ends
  pick = max if s.negatives == 'least_confident' and pool[0].reward != 1 else min
  return pick(pool, key=Node.uncertainty)


def select(root, current, has_end, s):
  children = [c for c in (root if has_end else current).children if c.reward is None]
  if s.backtrack == 'uct' if has_end else children:
    return max(children, key=lambda node: node.uct(s), default=None)
  is_strict = s.frontier_only or not has_end
  frontier = [n for n in root.walk()[1:] if n.reward is None and not (n.children and is_strict)]
  return max(frontier, key=lambda node: node.frontier_score(s), default=None)


def search(root, s):  # the expanded nodes and the collected ends, in their order
  current, expanded, collected = root, [], []
  open_ends = lambda nodes: [n for n in nodes if n.reward is not None and not n.is_collected]
  while current and len(collected) < s.num_trajectories and len(expanded) < s.max_expansions:
    if not current.children:
      expanded.append(current)
      width = s.width - s.width_decay * (current.depth // max(s.max_depth // s.width, 1))
      tags = [f'{current.tag}.{j}' for j in range(max(width, s.min_width))]
      current.children = [Node(tag, current, root.seed, s) for tag in tags]
    for child in current.children:
      child.visits += child.reward is None
    ends = open_ends(current.children)
    collected += [choose_end(ends, s).backup(s)] if ends else []
    current = select(root, current, bool(ends), s)
  while open_ends(root.walk()) and len(collected) < s.num_trajectories and s.policy != 'faithful':
    collected.append(choose_end(open_ends(root.walk()), s).backup(s))
  return expanded, collected
