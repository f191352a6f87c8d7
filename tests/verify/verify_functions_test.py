"""Expressions with letters: identities, kinks far from zero, series, integer letters.

Each line of the table is a verdict, a gold and an answer: `+` equal, `-` not shown to be equal.
"""

from __future__ import annotations

import pytest
from answer_cases import check, read_cases

CASES = r"""
- \arccos(\cos x) ;; x
- \lfloor x\rfloor ;; \lfloor x+0.01\rfloor
- \lfloor x\rfloor ;; \lfloor x+10^{-6}\rfloor
- \ln|x-10| ;; \ln(10-x)
- \ln|x-10| ;; \ln(x-10)
- |x-1000| ;; 1000-x
- |x-10^9| ;; 10^9-x
- \sqrt{(x-3)^2} ;; x-3
- \sqrt{x^4} ;; x
+ \sqrt{x^4} ;; x^2
- \max(x,100) ;; 100
- \min(x,50) ;; x
- \lceil x \rceil ;; \lfloor x \rfloor+1
- |x^2-100| ;; 100-x^2
- \arcsin(\sin x) ;; x
- \arctan(\tan x) ;; x
- |\sin x| ;; \sin x
- \sqrt{\sin^2 x} ;; \sin x
+ \sqrt{\sin^2 x} ;; |\sin x|
- |x+y-20| ;; 20-x-y
- \operatorname{sgn}(x-30) ;; -1
- |n| ;; n
- \lfloor n/2 \rfloor ;; n/2
- \lfloor \frac{n}{2} \rfloor ;; \frac{n-1}{2}
+ \lfloor n/2 \rfloor ;; \frac{2n-1+(-1)^n}{4}
- (-1)^n ;; 1
- (-1)^n ;; (-1)^{n+1}
+ (-1)^n ;; \cos(n\pi)
+ (-1)^{n+1} ;; -(-1)^n
- |x-3|+|x+3| ;; 6
+ |x-3|+|3-x| ;; 2|x-3|
- ||x|-5| ;; 5-|x|
- \sqrt{x^2} ;; x
- \frac{\sqrt{(x-50)^2}}{50-x} ;; 1
- x^{1/2}x^{1/2} ;; -x
- \lfloor 2x \rfloor ;; 2\lfloor x\rfloor
- 7 ;; 7\text{y}
+ x^{-1} ;; x⁻¹
- a_{1} ;; a₁₂
+ x^{10}y^{12} ;; x¹⁰y¹²
+ \frac{a+b}{2} ;; \nicefrac{a+b}{2}
+ \neg p ;; \lnot p
+ \gcd(a,b) ;; \operatorname{gcd}(a,b)
+ \gcd(a,b) ;; \gcd(b,a)
- 1 ;; \gcd(m,n)
+ \frac{x^2}{2}+C ;; \frac{x^2}{2}+c
+ \sin x + C ;; \sin(x)+c
- \sin x + C ;; \sin x
+ \frac{n(n+1)}2 ;; \sum_{k=1}^n k
+ \sum_{k=1}^{n} \frac1k ;; \sum_{j=1}^n \frac{1}{j}
- \sum_{k=1}^{n} \frac1k ;; \sum_{k=0}^n \frac{1}{k+2}
+ \sum_{k=1}^{n} \frac1k ;; \sum_{k=0}^{n-1} \frac{1}{k+1}
+ f'(x) ;; f^{\prime}(x)
+ f''(x) ;; f^{\prime\prime}(x)
+ x^2-3x+2 ;; (2-x)(1-x)
- \frac{1}{x-1} ;; 1/x-1
+ \frac{1}{x-1} ;; 1/(x-1)
+ \frac{1}{2}bh ;; \frac{bh}{2}
+ \frac{1}{2}bh ;; \frac{b \cdot h}{2}
- \frac{1}{2}bh ;; \frac{1}{2bh}
+ \frac{0.5a}{b}/0.5 ;; \frac{a}{b}
+ 2^{n+1}-2 ;; 2\cdot 2^n - 2
- 2^{n+1}-2 ;; 2^{n-1}-2
+ x^{\frac32} ;; x\sqrt{x}
+ x^{\frac32} ;; (\sqrt{x})^3
+ \vec{a}+2\vec{b} ;; \vec a+2\vec b
+ \mathcal{O}(n^2) ;; \mathcal{O}(n^{2})
- \mathcal{O}(n^2) ;; n^2
- 5 ;; x^5
- 5 ;; x_5
- 5 ;; |{-5}|+x
- n ;; m
- n ;; n+0.001
- x ;; x^2
+ \ln|x|+C ;; \log|x|+C
+ \ln|x|+C ;; \ln(|x|)+c
- \ln|x|+C ;; \ln x+C
- \ln|x|+C ;; \ln|x|
+ \frac{x^2}{2}+C ;; \frac{x^2+2C}{2}
- \frac{x^2}{2}+C ;; \frac{x^2}{2}
+ \ln\left|\frac{x-1}{x+1}\right|+C ;; \ln|x-1|-\ln|x+1|+C
- \ln\left|\frac{x-1}{x+1}\right|+C ;; \ln\left|\frac{x+1}{x-1}\right|+C
+ 2x ;; x+x
+ C_1e^{x}+C_2e^{-x} ;; C_2e^{-x}+C_1e^x
- N ;; n
- \frac{V}{R} ;; \frac{v}{r}
+ B ;; \mathrm{B}
+ B ;; B.
+ B ;; \text{Answer: B}
+ B ;; \text{The answer is B}
- B ;; C
- B ;; b
+ \binom{n}{k} ;; {n \choose k}
+ \binom{n}{k} ;; C_n^k
+ \binom{n}{k} ;; \frac{n(n-1)!}{k!(n-k)!}
+ \frac{(2n)!}{n!(n+1)!} ;; \frac{1}{n+1}\binom{2n}{n}
- |x^2-16| ;; (x-4)(x+4)
+ x^2+|x-7| ;; x^2+|7-x|
- x^2+|x-7| ;; x^2+x-7
- \max(x,10) ;; 10
+ \max(x,10) ;; \max(10,x)
+ \max(x,10) ;; \max\{x,10\}
+ \max(x,10) ;; \frac{x+10+|x-10|}{2}
+ |x|+|x-10| ;; |10-x|+|x|
- |x|+|x-10| ;; 10
+ \lfloor x\rfloor ;; \lfloor x+1\rfloor-1
- \lfloor x\rfloor ;; \lceil x\rceil
- \lfloor x\rfloor ;; x-\frac12
- \lfloor x\rfloor ;; \lfloor x+10^{-9} \rfloor
+ \frac{x^2-1}{x-1} ;; x+1
- \gcd(a,b) ;; 1
+ \epsilon_0 ;; \varepsilon_0
+ \varphi ;; \phi
- \varphi ;; p
+ AB ;; A B
+ 1 ;; \sin^2 x+\cos^2 x
+ 1 ;; \sec^2 x-\tan^2 x
+ 1 ;; \frac{x}{x}
- 1 ;; x^{0.01}
+ \log_2 x ;; \frac{\log x}{\log 2}
- \log_2 x ;; \log_x 2
- \log_2 x ;; \log_{10} x
+ \begin{pmatrix}x+1&0\\0&x^2\end{pmatrix} ;; \begin{pmatrix}1+x&0\\0&x\cdot x\end{pmatrix}
+ -\frac{a}{b} ;; \frac{-a}{b}
- -\frac{a}{b} ;; \frac{-a}{-b}
+ \frac{\mu_0 I}{2\pi r} ;; \frac{\mu_{0}I}{2\pi r}
+ \frac{1}{2}mv^2 ;; \frac{mv^2}{2}
- \frac{1}{2}mv^2 ;; mv^2
- \frac{1}{2}mv^2 ;; \frac12 mv
+ x^4 - 1 ;; (x-1)(x+1)(x^2+1)
- x^4 - 1 ;; 1-x^4
- \sqrt{a}+\sqrt{b} ;; \sqrt{a+b}
+ \frac{n(n+1)}{2} ;; \binom{n+1}{2}
+ \sum_{k=1}^{n} \frac{1}{k} ;; \sum_{i=1}^{n} \frac{1}{i}
+ \sum_{k=1}^{n} \frac{1}{k} ;; \sum\limits_{k=1}^n \frac1k
- \sum_{k=1}^{n} \frac{1}{k} ;; \ln n
- 3 ;; 3\mathrm{k}
- \pi ;; \pi\text{x}
+ \cos 2x ;; 2\cos^2x-1
+ \cos 2x ;; 1-2\sin^2 x
+ \cos 2x ;; \cos(2x)
+ \frac{1}{x} ;; x⁻¹
- x^{12} ;; x¹
+ \frac{d}{n} ;; \frac{d}{n}
- 1 ;; \gcd(n,17)
- 1 ;; \gcd(n,1009)
- (-1)^n ;; (-1)^n+\lfloor \frac{n}{50}\rfloor
- n \bmod 97 ;; n
- (-1)^n ;; (-1)^{n^2 + \lfloor n/97 \rfloor}
+ \gcd(n,n+1) ;; 1
+ \sum_{k=1}^n (2k-1) ;; n^2
+ \operatorname{lcm}(a,b)\gcd(a,b) ;; ab
- 5 ;; 5^{n}
+ 3.141592653589793 x^2 - 1.570796326794897 x^2 ;; 1.570796326794896 x^2
- 3.14159x ;; 3.14160x
"""


@pytest.mark.parametrize('case', read_cases(CASES), ids=str)
def test_functions(case):
  check(case)
