"""Intervals, inequalities, unions and sets by condition, each against the others.

Each line of the table is a verdict, a gold and an answer: `+` equal, `-` not shown to be equal.
"""

from __future__ import annotations

import pytest
from answer_cases import check, read_cases

CASES = r"""
- |x-5|<3 ;; x>2
- |x-7|\ge 2 ;; x\ge 9
+ |x-7|\ge 2 ;; x\ge 9 \text{ or } x\le 5
+ x^2 > 4 ;; |x|>2
- x^2 \ge 4 ;; |x|>2
+ x^2-3x+2<0 ;; (1,2)
+ x^2-3x+2<0 ;; 1<x<2
- x^2-3x+2<0 ;; [1,2]
+ (-1,1) ;; -1<x<1
+ (-\infty,2] ;; x \le 2
+ (3,\infty) ;; \{x \mid x>3\}
+ (-1,1) ;; |x|<1
+ (-\infty,2] ;; ]-\infty,2]
+ [0,1) ;; [0,1[
+ (-\infty,-3]\cup[3,\infty) ;; x \ge 3 \text{ or } x \le -3
+ k \in [-4,0] ;; -4\le k\le0
+ (3,\infty) ;; \{x \in \mathbb{R} : x>3\}
+ (3,\infty) ;; x \in (3,\infty)
+ (-\infty,\infty) ;; \mathbb{R}
+ \mathbb{R} ;; \text{all real numbers}
+ \mathbb{R}\setminus\{2\} ;; x\neq 2
+ (-\infty,2)\cup(2,\infty) ;; \mathbb{R}\setminus\{2\}
+ x\ge 2 ;; [2,+\infty)
- (0,1) ;; [0,1[
- (-\infty,2] ;; x<2
+ \mathbb{R} ;; x\in\mathbb{R}
+ \emptyset ;; \{\}
+ p \land q ;; p\wedge q
- \neg p \vee q ;; p\vee\neg q
+ p \wedge q ;; q\land p
+ A\cup B ;; B\cup A
- A\cup B ;; A\cap B
- \| (I + A)^{-1} A \| \le 1 ;; \| (I + A)^{-4} A \| \le 1
+ \{z \in \mathbb{C} \mid |z|<1\} ;; \{ w\in\mathbb{C} : |w|<1\}
- \{z \in \mathbb{C} \mid |z|<1\} ;; \{z \in \mathbb{R} \mid |z|<1\}
- \{z \in \mathbb{C} \mid |z|<1\} ;; (-1,1)
- x^2-3x+2 ;; x^2-3x+2>0
- 5 ;; 5 \ne 7
- 5 ;; \geq 5
- 5 ;; 5\neq x
+ 0<x<1 ;; x\in(0,1)
+ 0<x<1 ;; (0,1)
+ 0<x<1 ;; 0<x \text{ and } x<1
- 0<x<1 ;; 0\le x\le 1
+ a<b<c ;; c>b>a
+ \pi < x < 2\pi ;; (\pi, 2\pi)
- \pi < x < 2\pi ;; \pi\le x\le2\pi
- \pi < x < 2\pi ;; (3.14, 6.28)
- 0 ;; \emptyset
- y = 2x + 3 ;; y \ge 2x+3
- x=5 ;; x \ge 5
- 371 ;; 371 \neq 370
- 371 ;; m+n \geq 371
- |x-5|<3 ;; x<8
- |x-5|<3 ;; (2,8]
- |x-5|<3 ;; |x-5|<4
+ (1,3) ;; \{x : 1<x<3\}
+ (1,3) ;; 1 < x < 3
- (1,3) ;; 1\le x \le 3
+ (-\infty, 2] ;; \{x \in\mathbb{R} \mid x\le 2\}
- (-\infty, 2] ;; (-\infty,2)
+ (-\infty,-1) \cup (2,\infty) ;; x<-1 \text{ or } x>2
+ (-\infty,-1) \cup (2,\infty) ;; \mathbb{R}\setminus[-1,2]
- (-\infty,-1) \cup (2,\infty) ;; x<-1 \text{ and } x>2
- (-\infty,-1) \cup (2,\infty) ;; -1<x<2
+ (-1, 1) ;; |x| < 1
+ (-1, 1) ;; x^2<1
+ -1 \le x \le 1 ;; |x|\le 1
+ -1 \le x \le 1 ;; 1\ge x\ge -1
+ x \neq 2 ;; \mathbb{R}\setminus\{2\}
+ x \neq 2 ;; x<2 \text{ or } x>2
+ x \neq 2 ;; x \in \mathbb{R}, x\neq 2
- x \neq 2 ;; x\neq 3
+ [0, \frac{\pi}{2}] ;; 0\le\theta\le\frac{\pi}{2}
- [0, \frac{\pi}{2}] ;; [0,\pi/2)
- [0, \frac{\pi}{2}] ;; [0^\circ, 90^\circ)
+ \mathbb{R} ;; (-\infty,\infty)
+ \mathbb{R} ;; (-\infty,+\infty)
+ \mathbb{R} ;; \text{all reals}
+ \mathbb{R} ;; \text{all real }x
- \mathbb{R} ;; \mathbb{Z}
- \mathbb{R} ;; x>0
+ \emptyset ;; \text{empty set}
+ \emptyset ;; \text{the empty set}
- \emptyset ;; \{0\}
- \emptyset ;; 0
- \emptyset ;; \{\emptyset\}
+ \{x \mid x > 3\} ;; \{x: x>3\}
+ \{x \mid x > 3\} ;; x>3
+ a > 2 ;; 2<a
+ a > 2 ;; a \in (2,\infty)
- a > 2 ;; [2,\infty)
+ 1 < a \le 3 ;; (1,3]
+ 1 < a \le 3 ;; a \in (1,3]
+ x \ge 3 \text{ or } x \le -3 ;; |x|\ge 3
+ x \ge 3 \text{ or } x \le -3 ;; x\le -3 \lor x\ge 3
- x \ge 3 \text{ or } x \le -3 ;; -3\le x\le 3
+ k \in [-4, 0] ;; [-4,0]
- k \in [-4, 0] ;; -4<k<0
+ k \in [-4, 0] ;; -4 \leq k \leq 0
- -2, 3 ;; -2<x<3
- n=2, 3, 4 ;; 2\le n\le 4
- \neg p \vee q ;; \neg(p\vee q)
+ x \ge 2 ;; x ⩾ 2
- x>3 ;; x>3 \text{ or } x<3
- x>3 ;; x>3\text{ is wrong}
- x>0 ;; x>10^{-30}
- x^2>0 ;; x^2>10^{-40}
+ x^2>2 ;; |x|>\sqrt2
- x^2>2 ;; |x|>1.41421356
- x^2\ge2 ;; |x|>\sqrt2
+ x^3-x>0 ;; (-1,0)\cup(1,\infty)
+ \frac{x-1}{x+2}\ge 0 ;; (-\infty,-2)\cup[1,\infty)
- \frac{x-1}{x+2}\ge 0 ;; (-\infty,-2]\cup[1,\infty)
+ \sqrt{x}<2 ;; [0,4)
+ 2^x>8 ;; x>3
+ \ln x > 0 ;; (1,\infty)
- \ln x > 0 ;; [1,\infty)
- \emptyset ;; (2,-1)
- (2,2) ;; \emptyset
"""


@pytest.mark.parametrize('case', read_cases(CASES), ids=str)
def test_sets(case):
  check(case)
