"""Numbers, constants and the ways to write them, one answer against another.

Each line of the table is a verdict, a gold and an answer: `+` equal, `-` not shown to be equal.
"""

from __future__ import annotations

import pytest
from answer_cases import check, read_cases

CASES = r"""
- 7 ;; 7\text{ billion}
- 7 ;; 7\mathrm{e}
- 7 ;; 7\mathrm{\pi}
- 7 ;; 7\text{ dozen}
+ 84 ;; 7\text{ dozen}
+ 7 ;; \text{The final answer is } 7
+ 7 ;; \text{Final answer: } 7
+ 7 ;; \text{seven}
+ 4.5e33 ;; 4.5 \times 10^{33}
+ 4.5e33 ;; 4.5 \cdot 10^{33}
+ 4.5e33 ;; 4.5E33
+ 4.5e33 ;; 45 \times 10^{32}
- 4.5e33 ;; 148.5e
- 4.5e33 ;; 4.5\times 10^{32}
+ 2.7778e-6 ;; 2.7778 \times 10^{-6}
+ 1e-05 ;; 0.00001
+ 6e13 ;; 6\times10^{13}
- 6e13 ;; 6e
- \frac{1}{3^{100}} ;; \frac{1}{4^{100}}
- \frac1{100!} ;; \frac1{99!}
- \sqrt{2^{200}+1} ;; 2^{100}
- e^{-1000} ;; e^{-1001}
- e^{-1000} ;; 0
- 10^{-300} ;; 0
- \frac{2^{2005}+1}{3\cdot 2^{2006}} ;; \frac16
- 1+10^{-1000}\sqrt2 ;; 1
+ e^{-1000} ;; \frac{1}{e^{1000}}
+ \frac{1}{2^{1000}} ;; (1/2)^{1000}
- 52_8 ;; 52_9
+ 1011_2 ;; (1011)_2
+ 52_8 ;; 52_{\text{eight}}
+ 52_8 ;; 52
- 52_8 ;; 42
+ 2A_{16} ;; 2a_{16}
+ 10^{23} ;; 10²³
+ 10^{-3} ;; 10⁻³
- \frac13 ;; 0.333334
- 1234.567890 ;; 1234.567891
+ \frac13 ;; 0.333333
+ \frac23 ;; 0.666667
+ \pi ;; 3.14159
- \pi ;; 3.14160
+ -\infty ;; \text{negative infinity}
+ 5 ;; \textcolor{red}{5}
+ 5 ;; \color{red}{5}
+ 5 ;; {\color{red}5}
+ 5 ;; \boldsymbol{5}
+ 5 ;; **5**
+ 41.9 ;; \mathbf{41.9}
+ 5 ;; \text{The answer is }5
+ 5 ;; \text{The answer is: }5
+ 5 ;; \begin{aligned} 5 \end{aligned}
+ \frac12 ;; \sfrac{1}{2}
+ \frac12 ;; \nicefrac12
+ 1000 ;; \num{1000}
+ 2\frac13 ;; 2 1/3
+ 2\frac13 ;; 2⅓
+ \frac73 ;; 2⅓
- 1/2 ;; 2 1/2
+ 120 ;; C(10,3)
+ 120 ;; C_{10}^3
+ 120 ;; {}^{10}C_3
+ 120 ;; _{10}C_3
+ 120 ;; {}_{10}C_{3}
+ 120 ;; 10C3
+ 120 ;; _6P_3
+ 48 ;; 6!!
+ 12 ;; \operatorname{lcm}(4,6)
+ 12 ;; \text{lcm}(4,6)
+ 12 ;; \mathrm{lcm}(4,6)
+ 12 ;; 62 \bmod 50
+ 12 ;; 62 \mod 50
+ 12 ;; \max\{3,12\}
+ 12 ;; \min(12, 100)
+ \frac12+\frac{\sqrt3}{2}i ;; \operatorname{cis}\frac{\pi}{3}
+ \frac12+\frac{\sqrt3}{2}i ;; e^{i\pi/3}
+ \frac13 ;; 0.333\ldots
+ \frac{3}{11} ;; 0.2727\dots
+ \frac16 ;; 0.1\overline{6}
+ \frac16 ;; 0.1666...
- \frac13 ;; 0.33
+ 3\text{ million} ;; 3000000
+ 3\text{ million} ;; 3{,}000{,}000
+ 55 ;; \sum_{k=1}^{10}k
+ 24 ;; \prod_{k=1}^4 k
+ 1 ;; \sum_{k=1}^\infty \frac{1}{2^k}
- 2 ;; \sum_{k=1}^\infty \frac{1}{2^k}
+ 2 ;; \sum_{k=0}^\infty \frac{1}{2^k}
+ \frac{\pi^2}{6} ;; \sum_{n=1}^\infty \frac1{n^2}
+ \frac13 ;; \int_0^1 x^2 dx
+ \frac13 ;; \int_{0}^{1} x^2 \, dx
- \frac13 ;; \int_0^1 x\,dx
+ 2 ;; \int_0^\pi \sin x\,dx
+ 3^{2024} ;; (3^2)^{1012}
+ (\frac56)^{500} ;; \frac{5^{500}}{6^{500}}
- 3^{2024} ;; (3^2)^{1013}
+ \frac{2024!}{2!2022!} ;; \binom{2024}{2}
+ e ;; \lim_{n\to\infty}(1+\frac1n)^n
+ \log_2 10 ;; \frac{1}{\log_{10}2}
+ \begin{pmatrix}3\\4\end{pmatrix} ;; \begin{bmatrix}3\\4\end{bmatrix}
+ \begin{vmatrix}1&2\\3&4\end{vmatrix} ;; -2
+ 5 ;; \boxed{5}
+ 10^{10^{10}} ;; 10^{10^{10}}
- 10^{10^{10}} ;; 10^{10^{10}}+1
- 10^{10^{10}} ;; 10^{10^{9}}
+ \sqrt2+\sqrt3 ;; 3.14626437
+ \sqrt2+\sqrt3 ;; \sqrt{5+2\sqrt6}
- \sqrt2+\sqrt3 ;; \sqrt{5+2\sqrt6}+10^{-30}
+ \sqrt[3]{2+\sqrt5}+\sqrt[3]{2-\sqrt5} ;; 1
+ 2\cos\frac{2\pi}{7} ;; e^{2\pi i/7}+e^{-2\pi i/7}
+ \tanh(\ln 2) ;; \frac35
+ ["5"] ;; 5
+ .5 ;; 0.5
+ E[X \mid Y] ;; E[X\mid Y]
+ 1011_2 ;; 1011_{2}
+ 1011_2 ;; 1011
+ 1011_2 ;; \text{1011}_2
+ 52_8 ;; 52_{8}
- 52_8 ;; 528
+ 2A_{16} ;; \text{2A}_{16}
+ 2A_{16} ;; 2\text{A}_{16}
+ 5 ;; \boxed{5.}
+ 5 ;; 5.0
+ 5 ;; +5
+ 5 ;; \mathbf{5}
+ 5 ;; \textbf{5}
+ 5 ;; \textit{5}
+ 5 ;; {5}
+ 5 ;; (5)
+ 5 ;; \left(5\right)
+ 5 ;; \emph{5}
+ 5 ;; \text{five}
+ 5 ;; \mathsf{5}
+ 5 ;; \large 5
+ 5 ;; \Large{5}
+ 5 ;; \text{ 5 }
+ 5 ;; \quad 5 \quad
- 5 ;; 5?
- 5 ;; \sim 5
- 5 ;; 5+
- 5 ;; -5
- 5 ;; 5-7
- 5 ;; 5/7
- 5 ;; 5\text{ if } n \text{ even}
- 5 ;; 5 \text{ except } 7
- 5 ;; 5^{*}
- 5 ;; 5'
+ 5 ;; |-5|
- 5 ;; 5\cdot 10^3
+ 120 ;; \binom{10}{3}
+ 120 ;; \frac{10!}{7!3!}
+ 120 ;; P(10,3)/6
- 120 ;; C(10,4)
- 120 ;; 10^3
+ 15 ;; C(6,2)
+ -1 ;; i^{2}
- -1 ;; |{-1}|
+ \frac12+\frac{\sqrt3}{2}i ;; \frac{1+\sqrt{3}i}{2}
+ \frac12+\frac{\sqrt3}{2}i ;; \cos60^\circ+i\sin60^\circ
+ \frac12+\frac{\sqrt3}{2}i ;; \frac{1+\sqrt{-3}}{2}
- \frac12+\frac{\sqrt3}{2}i ;; \frac{1-i\sqrt3}{2}
+ 3-4i ;; 3 - 4\mathrm{i}
- 3-4i ;; -1
+ 0.1\overline{6} ;; \frac16
- 0.1\overline{6} ;; 0.16
- 0.1\overline{6} ;; 0.\overline{16}
+ \frac{22}{7} ;; 3\frac{1}{7}
- \frac{22}{7} ;; 3.14
+ \sqrt{2} ;; \sqrt2
+ \sqrt{2} ;; \frac{2}{\sqrt2}
+ \sqrt{2} ;; 1.41421356
- \sqrt{2} ;; 1.414
+ 0.001 ;; 10^{-3}
- 0.001 ;; 0.0001
+ 3 ;; 3.000
+ 3 ;; \frac{9}{3}
+ 0 ;; -0
- \frac{\pi}{3} ;; 60
- \frac{\pi}{3} ;; 1.047
- 2 ;; \text{not } 2 = 2
+ \sqrt{2^{200}+1} ;; \sqrt{1+4^{100}}
- \sqrt{2^{200}+1} ;; 2^{100}+1
- \binom{100}{50} ;; \binom{100}{49}
+ \binom{100}{50} ;; \frac{100!}{50!50!}
+ \binom{100}{50} ;; \frac{100!}{(50!)^2}
+ 100! ;; 100\cdot 99!
+ \frac{2^{2024}-1}{3} ;; \frac{4^{1012}-1}{3}
- \frac{2^{2024}-1}{3} ;; \frac{2^{2024}}{3}
+ 2^{2023} ;; 2\cdot2^{2022}
- 2^{2023} ;; 2^{2023}+1
+ 2023^{2023} ;; 2023\cdot 2023^{2022}
+ \infty ;; +\infty
+ \infty ;; \text{inf}
- \infty ;; 10^{100}
+ 2^{1000}-1 ;; 2\cdot 2^{999}-1
- 2^{1000}-1 ;; 2^{1000}
- 2^{1000}-1 ;; 2^{1000}+1
- 2^{1000}-1 ;; 2^{999}
+ \frac{1}{2004!} ;; (2004!)^{-1}
- \frac{1}{2^{99}} ;; 0
+ \frac{2^{2005}+1}{3\cdot2^{2006}} ;; \frac{1}{6}+\frac{1}{3\cdot 2^{2006}}
- 12345678901234567890 ;; 12345678901234567891
+ 12345678901234567890 ;; 12{,}345{,}678{,}901{,}234{,}567{,}890
- 12345678901234567890 ;; 1.23456789\times 10^{19}
+ 999999999999999999999999999999999999999999999999999999999999 ;; 10^{60}-1
+ 2023 ;; 7\cdot 17^2
+ 2023 ;; 2023!/2022!
- 2023 ;; 2023!
+ 2023! ;; 2023\cdot2022!
+ 2 \cdot 3^{50} ;; 3^{50}+3^{50}
- 10^{10^{10}} ;; 10^{100}
+ 10^{10^{10}} ;; 10^{10000000000}
- \lim_{x\to0}\frac{\sin x}{x} ;; 0
+ 1 ;; \lim_{n\to\infty} \frac{n+1}{n}
- 1 ;; \lim_{x\to 0} \frac{1}{x}
- 1 ;; \lim_{x\to 0} x
+ 12345 ;; 12\,345
+ 1e-05 ;; 10^{-5}
+ 1e-05 ;; \frac{1}{100000}
- 1e-05 ;; 1e-06
- 1e-05 ;; e-5
+ 2.5e-06 ;; 2.5\times 10^{-6}
+ 2.0 ;; 2
+ \boxed{12} ;; 12
+ 3 ;; \log_2 8
+ 3 ;; \lg 1000
- 3 ;; \log_2 3
+ \ln 2 ;; \log_e 2
+ \ln 2 ;; -\ln\frac12
+ \ln 2 ;; 0.693147
- \ln 2 ;; \log_{10} 2
- \log_{10} 2 ;; 0.301
+ \frac{3}{4} ;; \dfrac34
+ \frac{3}{4} ;; \cfrac{3}{4}
+ \frac{3}{4} ;; 0.75
+ \frac{3}{4} ;; \left(\frac{3}{4}\right)
+ \frac{3}{4} ;; {3 \over 4}
+ \frac{3}{4} ;; \frac{\;3\;}{\;4\;}
+ \frac{3}{4} ;; \mathrm{\frac{3}{4}}
+ \frac{3}{4} ;; \text{three-fourths}
+ \sqrt{3} ;; \surd 3
+ \sqrt{3} ;; \sqrt[2]{3}
+ \frac{\sqrt{2}}{2} ;; \sqrt{\frac12}
+ \frac{\sqrt{2}}{2} ;; \sin 45^\circ
+ \frac{\sqrt6+\sqrt2}{2} ;; \sqrt{2+\sqrt3}
+ e^2 ;; \exp(2)
+ e^2 ;; \operatorname{exp}(2)
+ 1 - \frac{1}{e} ;; 1-e^{-1}
+ 2+3i ;; 3i+2
+ 12 ;; \operatorname{lcm}(3,4)
+ 12 ;; \text{lcm}(3,4)
+ 12 ;; \gcd(24, 36)
+ 12 ;; \lceil 11.2 \rceil
+ 12 ;; 3*4
+ 12 ;; 3 \cdot 4
+ 12 ;; |{-12}|
+ 12 ;; \lvert -12\rvert
+ 12 ;; \sqrt{144}
+ 12 ;; 36 \bmod 24
- 12 ;; \gcd(24,35)
+ 5 \text{ million} ;; 5000000
- 5 \text{ million} ;; 5
+ 3000000 ;; 3,000,000
+ 3000000 ;; 3\times 10^6
- 3000000 ;; 3\text{ thousand}
+ 3000000 ;; \text{three million}
+ \begin{pmatrix}1&2\\3&4\end{pmatrix} ;; \begin{bmatrix}1&2\\3&4\end{bmatrix}
+ \begin{pmatrix}1&2\\3&4\end{pmatrix} ;; \left(\begin{array}{cc}1&2\\3&4\end{array}\right)
+ \begin{pmatrix}1&2\\3&4\end{pmatrix} ;; \begin{pmatrix}1&2\\3&4\\\end{pmatrix}
- \begin{pmatrix}1&2\\3&4\end{pmatrix} ;; \begin{vmatrix}1&2\\3&4\end{vmatrix}
- \begin{pmatrix}1&2\\3&4\end{pmatrix} ;; -2
+ \begin{pmatrix}1\\2\end{pmatrix} ;; \begin{bmatrix}1\\2\end{bmatrix}
- \begin{pmatrix}1\\2\end{pmatrix} ;; \begin{pmatrix}1&2\end{pmatrix}
+ \begin{pmatrix}2&0\\0&2\end{pmatrix} ;; 2\begin{pmatrix}1&0\\0&1\end{pmatrix}
+ \frac{7}{3} ;; 2 \frac{1}{3}
+ \frac{7}{3} ;; 2\ \frac13
- \frac{7}{3} ;; 2\times\frac13
- -3\frac{1}{2} ;; -2.5
- -7 ;; 7
+ -7 ;; –7
+ \frac{\frac{1}{2}}{\frac{3}{4}} ;; \frac23
+ \frac{\frac{1}{2}}{\frac{3}{4}} ;; (1/2)/(3/4)
+ \sqrt{2+\sqrt{2+\sqrt{2}}} ;; 2\cos\frac{\pi}{16}
- 0.5 ;; 0.05
+ 0.\overline{27} ;; \frac{27}{99}
- 0.\overline{27} ;; 0.2\overline{7}
+ 1.2\overline{34} ;; 1.2343434\ldots
- 1.2\overline{34} ;; 1.\overline{234}
+ \frac17 ;; 0.142857
+ \frac17 ;; 0.1428571
- \frac17 ;; 0.1429
- \frac17 ;; 0.14
- 0.123456 ;; 0.1234561
+ 0.123456 ;; .123456
- 100\sqrt2 ;; 141.42
+ 100\sqrt2 ;; 141.421356
- \pi ;; 3.14
- \pi ;; \frac{22}{7}
+ e ;; 2.718282
- e ;; 2.71828183e
+ 3.0 \times 10^{8} ;; 3\times10^8
+ 3.0 \times 10^{8} ;; 300000000
+ 3.0 \times 10^{8} ;; 3e8
- 3.0 \times 10^{8} ;; 3\times 10^9
+ 6.02e23 ;; 6.02\times10^{23}
+ 6.02e23 ;; 6.02 \cdot 10^{23}
- 6.02e23 ;; 6.022\times10^{23}
- \sqrt[3]{2} ;; \sqrt{2}
+ \frac{1+\sqrt5}{2} ;; \frac{1}{2}(1+\sqrt{5})
- \frac{1+\sqrt5}{2} ;; 1.618
+ 55 ;; 1+2+3+4+5+6+7+8+9+10
+ \frac{\pi^2}{6} ;; \zeta(2)
+ 3 ;; 3\text{ ways}
- 3 ;; 3\text{ hundred}
- 3 ;; 3\text{ pi}
- 3 ;; 3\text{ percent of }x
- 3 ;; 3\text{ modulo }7
- 3 ;; 3\text{ but not }4
- 1000 ;; 1000\text{ million}
+ 1000 ;; 1\text{ thousand}
+ 1000 ;; \text{one thousand}
- 1,234 ;; 1.234
+ 1,234.5 ;; 1234.5
- \frac{\binom{100}{50}}{2^{100}} ;; \frac{\binom{100}{49}}{2^{100}}
+ \frac{\binom{100}{50}}{2^{100}} ;; \binom{100}{50}\cdot 2^{-100}
+ \frac{\binom{100}{50}}{2^{100}} ;; \frac{100!}{50!^2 2^{100}}
- 1-\frac{1}{2^{200}} ;; 1
+ 1-\frac{1}{2^{200}} ;; \frac{2^{200}-1}{2^{200}}
- e^{-100} ;; e^{-101}
- 10^{-50} ;; 10^{-51}
+ \arctan\frac{1}{2} ;; \operatorname{arccot} 2
- \arctan\frac{1}{2} ;; 0.46
+ 36\pi ;; 36π
- 36\pi ;; 36
- 1011_2 ;; (10)(11)_2
- 5 ;; 5_7
- 10 ;; 10_2
+ 10 ;; 10_{10}
- \frac12 ;; \frac12\text{ (not } \frac13)
- 3 ;; \lfloor \sqrt{9-10^{-60}} \rfloor
+ 2 ;; \lfloor \sqrt{9-10^{-60}} \rfloor
+ 3 ;; \lfloor \log_2 8 \rfloor
- 1-\frac{1}{2^{200}} ;; \lim_{x\to0}\frac{\sin x}{x}
- -1 ;; \lim_{x\to 0}\frac{|x|}{x}
+ 1 ;; \lim_{x\to 0^+}\frac{|x|}{x}
+ -1 ;; \lim_{x\to 0^-}\frac{|x|}{x}
- 1 ;; \sum_{k=1}^\infty (\frac{1}{2^k} + \lfloor \frac{k}{100}\rfloor)
- 1 ;; \sum_{k=1}^\infty (\frac{1}{2^k} + (k-1)(k-2)(k-3)(k-4)(k-5)(k-8))
+ \frac13 ;; \sum_{k=1}^\infty \frac{1}{4^k}
+ \frac{\pi^4}{90} ;; \sum_{n=1}^\infty n^{-4}
- 2 ;; \sum_{n=0}^\infty 2^n
+ e-1 ;; \int_0^1 e^x dx
+ \ln 2 ;; \int_1^2 \frac{1}{x} dx
- 1 ;; \int_{-1}^{1} x\,dx
+ \frac12 ;; \lim_{x\to\infty}\frac{x^2+1}{2x^2}
- 5 ;; 5\text{ (or 6)}
+ 5 ;; 5^{\text{th}}
+ 5 ;; 5\text{th}
+ 21 ;; 21^{st}
- 0.160257708151404 ;; 0.160257708151405
"""


@pytest.mark.parametrize('case', read_cases(CASES), ids=str)
def test_numbers(case):
  check(case)
