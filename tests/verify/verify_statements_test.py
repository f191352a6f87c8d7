"""Equations, names, assignments, false statements, residues, families, functions by cases.

Each line of the table is a verdict, a gold and an answer: `+` equal, `-` not shown to be equal.
"""

from __future__ import annotations

import pytest
from answer_cases import check, read_cases

CASES = r"""
+ 371 ;; m+n = 371
+ 45^\circ ;; \angle ABC = 45^\circ
+ 5 ;; f^{-1}(3)=5
+ 3 ;; E[X]=3
+ 84 ;; [ABC]=84
+ \frac12 ;; P(X=3)=\frac12
+ 2x ;; \frac{dy}{dx}=2x
+ 0 ;; \lim_{x\to 0} f(x) = 0
+ -2 ;; \det A=-2
+ 371 ;; m+n = 300+71 = 371
- 371 ;; m+n = 300+72 = 371
- 5 ;; 6=5
- 5 ;; 0=5
- \frac12 ;; \frac13=\frac12
- 371 ;; 171 = 7\cdot53
+ 371 ;; 371 = 7\cdot53
- 0 ;; x^2-1=0
- 0 ;; a+b=0
+ 0 ;; f(2)=0
+ 6 ;; |AB| = 6
+ 6 ;; \overline{AB} = 6
+ 6 ;; AB = BC = 6
+ 6 ;; x = y = 6
+ 6 ;; \text{The area} = 6
+ 6 ;; S_{ABC} = 6
+ 6 ;; x_{\max} = 6
+ 6 ;; \operatorname{rank}(A) = 6
+ 6 ;; \dim V = 6
+ 6 ;; a^2+b^2 = 6
+ 6 ;; \sum a_i = 6
+ 6 ;; n(A\cup B) = 6
- x=1, y=2 ;; (2,1)
- x=1, y=2 ;; 2,1
+ x=1, y=2 ;; (1,2)
- (x,y)=(2,-1) ;; y=2, x=-1
+ (x,y)=(2,-1) ;; y=-1, x=2
+ (a,b)=(3,4) ;; b=4, a=3
+ 6 ;; N=\textbf{6}
+ x=1, y=2 ;; \begin{aligned} x&=1\\ y&=2\end{aligned}
+ x \equiv 3 \pmod 7 ;; x\equiv 10 \pmod{7}
+ x \equiv 3 \pmod 7 ;; 3 \pmod 7
+ x \equiv 3 \pmod 7 ;; x\equiv 3\ (\text{mod }7)
+ x \equiv 3 \pmod 7 ;; x ≡ 3 (mod 7)
+ x \equiv 3 \pmod 7 ;; x \equiv 3 \mod 7
+ x \equiv 3 \pmod 7 ;; x \equiv -4 \pmod 7
- x \equiv 3 \pmod 7 ;; x \equiv 4 \pmod 7
- x \equiv 3 \pmod 7 ;; x \equiv 3 \pmod 8
- 5 ;; 5 \pmod 7
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}+n\pi, n\in\mathbb{Z}
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}+k\pi
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; x=\frac{\pi}{4}+n\pi \text{ for } n\in\mathbb{Z}
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{5\pi}{4}+k\pi, k\in\mathbb{Z}
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}+k\pi \text{ where } k \text{ is an integer}
- \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}+2k\pi, k\in\mathbb{Z}
+ f(x)=cx ;; f(x)=cx \text{ where } c \text{ is a constant}
+ f(x)=x+1 ;; x+1
+ |x| ;; \begin{cases} x & x\ge 0\\ -x & x<0\end{cases}
- |x| ;; \begin{cases} x & x\ge 0\\ x & x<0\end{cases}
- x ;; \begin{cases} x & x\ge 1\\ -x & x<1\end{cases}
- 1 \mod 4 ;; 1 \mod 3
+ 1 \mod 4 ;; 5 \pmod 4
- I(0) = 0 ;; I(4) = 0
- T_1 = T_2 = T_3 ;; T_1 = T_7 = T_3
+ T_1 = T_2 = T_3 ;; T_3=T_2=T_1
- \gcd(n, 6) = 1 ;; \gcd(n, 9) = 1
- f(e^t, t^2) = c ;; f(e^t, t^8) = c
+ f(x)=x+1 ;; y=x+1
- f(x)=x+1 ;; g(x)=x+1
- v''(x) = 0 ;; I(0) e^{-\frac{t}{R C}}
+ 4 \mid n ;; 4\mid n
- 4 \mid n ;; 2\mid n
+ x_n \to 0 ;; x_{n} \rightarrow 0
+ x^2-3x+2 ;; f(x) = x^2-3x+2
+ x^2-3x+2 ;; P(x)=(x-1)(x-2)
+ \triangle ABC \sim \triangle DEF ;; \triangle ABC\sim\triangle DEF
+ x=1, y=2, z=3 ;; (x,y,z)=(1,2,3)
+ x=1, y=2, z=3 ;; z=3, y=2, x=1
+ x=1, y=2, z=3 ;; (1,2,3)
- x=1, y=2, z=3 ;; x=1,y=2
- x=1, y=2, z=3 ;; \{1,2,3\}
+ a=-1, b=4 ;; b=4 \text{ and } a=-1
+ a=-1, b=4 ;; a=-1; b=4
+ a=-1, b=4 ;; a=-1,\ b=4
+ a=-1, b=4 ;; \begin{cases}a=-1\\b=4\end{cases}
- a=-1, b=4 ;; a=4, b=-1
- a=-1, b=4 ;; (4,-1)
+ (x, y) = (2, -1) ;; x=2 \text{ and } y=-1
- (x, y) = (2, -1) ;; 2
- \alpha = 30^\circ, \beta = 60^\circ ;; 30^\circ
+ \alpha = 30^\circ, \beta = 60^\circ ;; \alpha=30, \beta=60
- 5 ;; 5=x=6
- 5 ;; x \to 5
+ 2x ;; f'(x)=2x
+ 2x ;; y' = 2x
+ y = 2x + 3 ;; y=3+2x
+ y = 2x + 3 ;; 2x-y+3=0
+ y = 2x + 3 ;; f(x)=2x+3
+ y = 2x + 3 ;; y = 2\left(x+\frac32\right)
- y = 2x + 3 ;; x = 2y+3
- y = 2x + 3 ;; y = 2x+3 = 0
+ (x-1)^2 + (y+2)^2 = 9 ;; x^2-2x+y^2+4y-4=0
+ (x-1)^2 + (y+2)^2 = 9 ;; (y+2)^2+(x-1)^2=3^2
- (x-1)^2 + (y+2)^2 = 9 ;; 9
- (x-1)^2 + (y+2)^2 = 9 ;; (x+1)^2+(y-2)^2=9
+ \frac{x^2}{4}+\frac{y^2}{9}=1 ;; 9x^2+4y^2=36
+ x=5 ;; x = \frac{10}{2}
+ x=5 ;; \{5\}
- x=5 ;; y=5
- x=5 ;; x^2=25
- x=5 ;; \pm5
- x=0 ;; y=0
- m = \pm 7 ;; m=7
- m = \pm 7 ;; m^2=49
+ A = \pi r^2 ;; \pi r^2
+ A = \pi r^2 ;; A = r^2\pi
- A = \pi r^2 ;; \pi r
+ a_n = 2n-1 ;; a_n = 2(n-1)+1
+ 371 ;; f(3) = 371
+ 371 ;; x+y = 371
+ 371 ;; m + n + p = 371
+ 371 ;; 100a+10b+c = 371
+ 371 ;; \text{Answer} = 371
+ 371 ;; \boxed{m+n=371}
+ 371 ;; |S| = 371
+ 371 ;; p+q=365+6=371
+ 371 ;; \frac{742}{2} = 371
- 371 ;; \frac{740}{2} = 371
- 371 ;; 370+2=371
- 371 ;; m=300, n=71
- 371 ;; 300+70=371
- 371 ;; x = 371 \text{ or } x=372
- 371 ;; 371 = 372
+ 0 ;; f(0) = 0
+ 0 ;; \int_{-1}^{1} x\,dx = 0
+ 0 ;; \det A = 0
- 0 ;; x^2+y^2 = 0
- 0 ;; x-1=0
- 0 ;; 0=1
+ x^2-x=0 ;; x(x-1)=0
- x^2-x=0 ;; x=0
+ y=\sqrt{x} ;; y=x^{1/2}
+ y=\sqrt{x} ;; \sqrt{x}
- xy=1 ;; 1
- xy=1 ;; x/y=1
+ \frac{x}{2}=\frac{y}{3}=\frac{z}{4} ;; \frac{z}{4}=\frac{y}{3}=\frac{x}{2}
+ 113 ;; a+b+c=113
+ 113 ;; 113 = a+b
+ 2 ;; |z|=2
+ 2 ;; \lim_{x\to\infty}\frac{2x}{x+1} = 2
+ 2 ;; \sqrt{4}=2
- 2 ;; \sqrt{5}=2
- 2 ;; 1=2
+ 2 ;; \mathrm{rank}(A)=2
+ 2 ;; \tan\theta = 2
+ 2 ;; \vec{u}\cdot\vec{v} = 2
+ 2 ;; \angle A = 2
+ 2 ;; f^{-1}(x) = 2
+ 2 ;; \text{Area of } ABC = 2
+ 2 ;; \overline{x} = 2
+ 2 ;; x_1+x_2=2
+ 2 ;; a_{10}=2
+ 2 ;; \operatorname{Var}(X)=2
+ 2 ;; \log_2 x = 2
+ 2 ;; \sigma^2=2
- 2 ;; 2=3=2
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}+\pi k, k \in \mathbb{Z}
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; x = \frac{\pi}{4}+k\pi, k\in\mathbb{Z}
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}+k\pi\ (k\in\mathbb{Z})
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \left\{\frac{\pi}{4}+k\pi : k\in\mathbb{Z}\right\}
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{(4k+1)\pi}{4}, k\in\mathbb{Z}
+ \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; -\frac{3\pi}{4}+k\pi, k\in\mathbb{Z}
- \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}+\frac{k\pi}{2}, k\in\mathbb{Z}
- \frac{\pi}{4}+k\pi, k\in\mathbb{Z} ;; \frac{\pi}{4}, \frac{5\pi}{4}
+ f(x) = cx ;; f(x)=cx, c\in\mathbb{R}
+ f(x) = cx ;; f(x)=cx \text{ where } c\in\mathbb{R}
- f(x) = cx ;; f(x)=x
+ f(x)=x \text{ and } f(x)=-x ;; f(x)=\pm x
+ f(x)=x \text{ and } f(x)=-x ;; f(x)=-x \text{ or } f(x)=x
+ \{1,2,3\} ;; x = 1, 2, 3
+ \{1,2,3\} ;; x\in\{1,2,3\}
+ 1, 2 ;; x=1,2
+ 1, 2 ;; x\in\{1,2\}
+ 3 \pm \sqrt{5} ;; x = 3\pm\sqrt5
+ (a,b) = (3,4) ;; a=3, b=4
+ (a,b) = (3,4) ;; (3,4)
- (a,b) = (3,4) ;; 3,5
- A=1, B=-2, C=3 ;; A=-2, B=1, C=3
+ A=1, B=-2, C=3 ;; (1,-2,3)
+ A=1, B=-2, C=3 ;; (A,B,C)=(1,-2,3)
+ A=1, B=-2, C=3 ;; C=3,\ B=-2,\ A=1
+ n=2, 3, 4 ;; 2,3,4
+ n=2, 3, 4 ;; \{2,3,4\}
+ n=2, 3, 4 ;; n=2 \text{ or } n=3 \text{ or } n=4
- 12 ;; 12 \pmod{13}
+ x \equiv 3 \pmod 7 ;; x\equiv 3\mod{7}
+ x \equiv 3 \pmod 7 ;; x = 7k+3, k\in\mathbb{Z}
- x \equiv 3 \pmod 7 ;; 3
- x \equiv 3 \pmod 7 ;; x=3
+ \frac{\mu_0 I}{2\pi r} ;; B=\frac{\mu_0 I}{2\pi r}
+ \frac{1}{2}mv^2 ;; E_k=\frac12mv^2
+ (3, -4) ;; (x,y)=(3,-4)
+ (3, -4) ;; A = (3,-4)
- (3, -4) ;; x=-4, y=3
+ \left(2, \frac{\pi}{3}\right) ;; (r,\theta)=(2,\frac{\pi}{3})
+ \frac{1}{2} ;; P = \frac12
+ \frac{1}{2} ;; P(A)=0.5
+ \frac{1}{2} ;; \Pr(A)=\frac12
+ \frac{1}{2} ;; \mathbb{P}(X=1) = \frac12
+ \frac{1}{2} ;; P(A\cap B)=\frac12
+ \frac{1}{2} ;; P(A\mid B)=\frac12
+ \frac{1}{2} ;; P(X\le 3)=\frac12
- \frac{1}{2} ;; P(A)=\frac13
- \frac{1}{2} ;; 1 - \frac12 = \frac13
+ 0, \pm 1 ;; x=0, x=1, x=-1
- x=2, y=3 ;; x = 3 = 2, y=3
- y=2x ;; y=2x\text{ is wrong}
- y=2x ;; y=2x \text{ or } y=3x
- x=0 ;; \frac{d}{dx}(x^2) = 2x
+ 2x ;; \frac{dy}{dx} = 2x
+ 2x ;; \frac{\partial f}{\partial x} = 2x
+ 3 ;; \frac{d^2y}{dx^2} = 3
- A + B + C = \pi ;; A+B+C
- (2,2) ;; A \cap B = \varnothing
- u^\top u = 0 ;; 0
- 0 ;; u^\top u = 0
- \{0\} ;; x + 2y - 5 = 0
+ 0 ;; \lim_{n \to \infty} a_n = 0
+ 0 ;; E[X] = 0
+ 0 ;; P(A\mid B) = 0
+ \pi ;; A+B+C = \pi
+ A \subseteq B ;; B \supseteq A
- A \subseteq B ;; B \subseteq A
- A \subseteq B ;; A \subset B
"""


@pytest.mark.parametrize('case', read_cases(CASES), ids=str)
def test_statements(case):
  check(case)
