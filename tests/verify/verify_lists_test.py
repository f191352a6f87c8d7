"""Lists, sets, points, vectors, matrices and ratios.

Each line of the table is a verdict, a gold and an answer: `+` equal, `-` not shown to be equal.
"""

from __future__ import annotations

import pytest
from answer_cases import check, read_cases

CASES = r"""
- \{x\} ;; x
- 7 ;; 7\text{ or eight}
- 7 ;; 7\text{ or less}
+ 5, 125 ;; \{5,125\}
+ 1, 100 ;; 100 \text{ and } 1
- 1, 100 ;; 1100
+ $1$, $100$ ;; 1, 100
+ (0,1) ;; ]0,1[
- (1,2) ;; \{1,2\}
- (1,2) ;; 1,2
+ red and blue ;; blue and red
+ A, C ;; \text{A and C}
- 3:30\text{ p.m.} ;; 3:30\text{ a.m.}
+ 3:30\text{ p.m.} ;; 3:30\text{ PM}
+ 1, 2, \ldots, n ;; 1, 2, \dots, n
- 1, 2, \ldots, n ;; 1, 2, \dots, m
+ \pm 1 \pm\sqrt2 ;; \pm1\pm\sqrt{2}
+ 1:2:3 ;; 2:4:6
- 5125 ;; 5, 125
+ (3,-4) ;; P(3,-4)
- ["2", "-2"] ;; 2
- ["1","100"] ;; 1100
+ ["1","100"] ;; 100, 1
- x^2-3x+2 ;; (1,2)
- 5 ;; \text{either } 5 \text{ or } 7
- 5 ;; \pm 5
- 5 ;; 5:7
- 5 ;; [5,7]
- 5 ;; 5, \ldots
- 6 \text{ red}, 4 \text{ blue} ;; 6 \text{ blue}, 4 \text{ red}
- 6 \text{ red}, 4 \text{ blue} ;; 6, 4
- x ;; x, x
+ A, C ;; C, A
+ A, C ;; (A), (C)
- A, C ;; \text{A or B}
- 3-4i ;; (3,-4)
- (1,3) ;; 1,3
- (1,3) ;; \{1,3\}
- \{1,2,3\} ;; (1,2,3)
- \{1,2,3\} ;; [1,3]
+ 1, 2 ;; \{1,2\}
+ 1, 2 ;; 2 \text{ and } 1
+ 1, 2 ;; 1;2
- 1, 2 ;; (1,2)
- 1, 2 ;; 1
- 1, 2 ;; 12
- 1, 2 ;; 1,2,3
+ -2, 3 ;; \{-2,3\}
- -2, 3 ;; 2,3
- -2, 3 ;; [-2,3]
+ \sqrt{2}, -\sqrt{2} ;; \pm\sqrt2
+ 3 \pm \sqrt{5} ;; 3+\sqrt5, 3-\sqrt5
+ 3 \pm \sqrt{5} ;; \frac{6\pm\sqrt{20}}{2}
- 3 \pm \sqrt{5} ;; 5\pm\sqrt3
+ \frac{-1 \pm i\sqrt{3}}{2} ;; -\frac12\pm\frac{\sqrt3}{2}i
+ \frac{-1 \pm i\sqrt{3}}{2} ;; \frac{-1+ i\sqrt{3}}{2}, \frac{-1- i\sqrt{3}}{2}
- \frac{-1 \pm i\sqrt{3}}{2} ;; \frac{1 \pm i\sqrt{3}}{2}
+ (1,2), (3,4) ;; \{(1,2),(3,4)\}
+ (1,2), (3,4) ;; (x,y)=(1,2),(3,4)
+ (1,2), (3,4) ;; (1,2) \text{ and } (3,4)
- (1,2), (3,4) ;; (2,1),(4,3)
+ 19, 46, \text{ and } 82 ;; \{19,46,82\}
- 1:2:3 ;; 123
+ 100, 200, 300 ;; \{100,200,300\}
+ 100, 200, 300 ;; 300,200,100
- 100, 200, 300 ;; 100200300
+ 100, 200, 300 ;; 100 \text{, } 200 \text{ and } 300
+ 10, 100 ;; 10,100
+ \{12, 345\} ;; 12, 345
- 12345 ;; 12, 345
+ \langle 1, -2, 3\rangle ;; (1,-2,3)
+ \langle 1, -2, 3\rangle ;; \langle 1,-2,3 \rangle
- \langle 1, -2, 3\rangle ;; \langle 1,-2\rangle
+ (3, -4) ;; \left(3,-4\right)
+ (3, -4) ;; A(3,-4)
- (3, -4) ;; (-4,3)
- (3, -4) ;; [3,-4]
- (3, -4) ;; \{3,-4\}
- (3, -4) ;; 3-4i
+ \left(2, \frac{\pi}{3}\right) ;; (2, 60^\circ)
- \left(2, \frac{\pi}{3}\right) ;; (2, \frac{\pi}{6})
+ \frac{1}{2} ;; 1:2
- \frac{1}{2} ;; \frac12 \text{ or } \frac13
- 3:4 ;; 3,4
- 3:4 ;; (3,4)
+ 3:4 ;; 6:8
- 3:4 ;; 3
+ 0, \pm 1 ;; \{-1,0,1\}
- 0, \pm 1 ;; \pm 1
+ \pm 1 \pm \sqrt{2} ;; \pm(1+\sqrt2), \pm(1-\sqrt2)
- \pm 1 \pm \sqrt{2} ;; 1\pm\sqrt2
+ (\pm 1, \pm 2) ;; (1,2),(1,-2),(-1,2),(-1,-2)
+ (\pm 1, \pm 2) ;; (\pm1,\pm2)
- (\pm 1, \pm 2) ;; (1,2),(-1,-2)
+ 2^{1/3}, 2 ;; 2, \sqrt[3]{2}
- 1, 1, 2, 3, 5 ;; 1,2,3,5,8
+ 2, 4, 8, \ldots ;; 2,4,8,\dots
- 2, 4, 8, \ldots ;; 2,4,8
- 3 ;; 3\text{ or }5
- 3 ;; 3\text{ and a half}
- 3 ;; 3\text{ to }5
- x+1 ;; x+1\text{ or }x
- 1,234 ;; 1, 234
+ 3:30 \text{ p.m.} ;; 3:30\text{ pm}
+ 3:30 \text{ p.m.} ;; 3{:}30 \text{ p.m.}
+ 3:30 \text{ p.m.} ;; 15:30
+ 3:30 \text{ p.m.} ;; 3:30
- 3:30 ;; 3.5
- 3:30 ;; 4:30
+ (1,2) ;; （1，2）
+ red and blue ;; \text{blue and red}
- red and blue ;; \text{red or blue}
- B ;; \text{(B) or (C)}
- B ;; \text{(B), (C)}
- B ;; \text{B. or C}
- (1,2) ;; (1,2) \text{ or } (2,1)
- \{1,2\} ;; \{1,2\}\text{ or }\{3\}
- 1:2 ;; 1:2 \text{ or } 2:1
- \pi ;; \pi \text{ or } 2\pi
- (0,\infty) ;; (10^{-20},\infty)
- [0,1] ;; [0,1+10^{-25}]
- (0,1) ;; (0,1-10^{-40})
- \{12, 345\} ;; 12,345
"""


@pytest.mark.parametrize('case', read_cases(CASES), ids=str)
def test_lists(case):
  check(case)
