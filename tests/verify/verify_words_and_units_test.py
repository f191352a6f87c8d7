"""Words, options, units, currencies, percentages and magnitudes.

Each line of the table is a verdict, a gold and an answer: `+` equal, `-` not shown to be equal.
"""

from __future__ import annotations

import pytest
from answer_cases import check, read_cases

from ds_jax.verify import grade_math

CASES = r"""
- 7 ;; 7\text{ is incorrect}
- 7 ;; 7\text{ plus one}
- 7 ;; 7\text{ halves}
- 7 ;; 7\text{ thirds}
- 7 ;; \text{at least }7
- 7 ;; \text{not }7
- 7 ;; \text{about }7
- 7 ;; 7\text{ hundredths}
- 7 ;; 7 \text{ maybe}
+ 7 ;; 7\text{ students}
+ 7 ;; 7\text{ distinct real solutions}
+ 7 ;; 7\text{ possible values}
- 5\text{ cm} ;; 5\text{ cm}^2
- 5\text{ m} ;; 5\text{ ms}
- 8\text{ MW} ;; 8\text{ mW}
- 6\text{ N m} ;; 6\text{ N/m}
- 10\text{ m/s} ;; 10\text{ m/s}^2
- \$32 ;; €32
- 45^\circ ;; 45\text{ radians}
+ 5\text{ cm} ;; 5\text{ centimeters}
+ 5\text{ m} ;; 5\text{ meters}
+ 2\text{ h} ;; 2\text{ hours}
+ 12\text{ cm}^2 ;; 12\text{ square centimeters}
+ 60\text{ mph} ;; 60\text{ miles/hour}
+ 20 ;; 20^\circ\text{C}
+ 20^\circ\text{C} ;; 20
+ 20^\circ\text{C} ;; 20\text{ degrees Celsius}
- 20^\circ\text{C} ;; 20^\circ\text{F}
+ 5\text{ kg} ;; 5\text{ kilograms}
+ 9.8\text{ m/s}^2 ;; 9.8\,\mathrm{m\,s^{-2}}
+ 9.8\text{ m/s}^2 ;; 9.8\text{ m/s/s}
+ 9.8\text{ m/s}^2 ;; 9.8\text{ meters per second squared}
+ 3\text{ ft}^2 ;; 3\text{ square feet}
+ 3\text{ ft}^2 ;; 3\text{ sq ft}
+ 100\text{ N} ;; 100\text{ newtons}
+ 5\ \Omega ;; 5\text{ ohms}
+ 30\text{ minutes} ;; 30\text{ min}
+ \$32 ;; \text{USD }32
+ \$32 ;; 32\text{ USD}
+ \$32 ;; 32
+ \$0.32 ;; 32\text{ cents}
- 5\text{ kg} ;; 5\text{ g}
- 5\text{ mi} ;; 5\text{ min}
- 5\text{ Pa} ;; 5\text{ PA}
- 5\text{ apples} ;; 5\text{ oranges}
- 5\text{ dollars} ;; 5\text{ euros}
- £5 ;; ¥5
+ 5\,\mu\text{m} ;; 5\text{ micrometers}
+ 5\,\text{km/h} ;; 5\text{ kilometers per hour}
+ \text{March 14} ;; March 14
+ \text{Player 2} ;; Player 2
+ \text{circle} ;; \text{a circle}
- 6\text{ red}, 4\text{ blue} ;; 6\text{ red}
- \text{Tom} ;; oTm
+ 30^\circ 15' ;; 30.25^\circ
- 30^\circ 15' ;; 30.15^\circ
+ 30^\circ 15' 36'' ;; 30.26^\circ
+ \$3\text{ million} ;; 3\text{ million dollars}
+ 28\% ;; 0.28
+ 28\% ;; 28
+ 28\% ;; 28 \text{ percent}
- 28\% ;; 2.8
+ 0.28 ;; 28\%
+ \frac14 ;; 25\%
+ \frac{\pi}{4} ;; 45^\circ
- 5 ;; \text{less than 5}
- 5 ;; \text{more than } 5
- 5 ;; \text{Option 5}
- 5 ;; \text{Step 5}
+ \text{No real solutions} ;; \text{no real solutions}
- \text{No real solutions} ;; \text{real solutions}
+ \text{Player 2} ;; \text{Player } 2
- \text{Player 2} ;; 2
- \text{Player 2} ;; \text{Player 1}
- \text{Alice wins} ;; \text{Alice}
- \text{Alice wins} ;; \text{Bob wins}
- \text{Yes} ;; \text{Yes or no}
- \text{Yes} ;; \text{No}
+ \text{Yes} ;; \text{Yes.}
- False ;; \text{True}
+ False ;; \text{No}
+ B ;; \text{B) }12
+ B ;; \text{Choice B}
+ B ;; \text{option (B)}
+ \textbf{(D)}\ 25 ;; \text{D}
+ \textbf{(D)}\ 25 ;; 25
+ \text{Monday} ;; monday
+ \text{Monday} ;; \text{on Monday}
+ \text{March 14} ;; \text{14 March}
- \text{March 14} ;; 14
- \text{March 14} ;; \text{May 14}
- July 4, 1776 ;; \text{July 4}
- July 4, 1776 ;; \text{July 4, 1777}
+ 0 ;; 0^\circ
+ 45^\circ ;; 45\text{ degrees}
+ 45^\circ ;; 45°
+ 45^\circ ;; 45
+ 45^\circ ;; \frac{\pi}{4}
+ 45^\circ ;; \frac{\pi}{4}\text{ radians}
- 45^\circ ;; 45\text{ rad}
- 45^\circ ;; 54^\circ
- 45^\circ ;; \cos 45^\circ
+ \frac{\pi}{3} ;; 60^\circ
+ \frac{\pi}{3} ;; \frac{\pi}{3}\text{ rad}
- \infty ;; \text{does not exist}
- \text{cat} ;; \text{cat and dog}
+ \text{cat} ;; \text{the cat}
+ \text{cat} ;; cat
+ \text{red} ;; RED
- \text{red} ;; \text{not red}
- \text{red} ;; \text{dark red}
- \text{BCA} ;; CBA
+ \text{ADBC} ;; ADBC
- \text{ADBC} ;; A, D, B, C
- Tom ;; mTo
+ Tom ;; tom
+ 5\frac{3}{4}\text{ feet} ;; 5.75\text{ ft}
+ 5\frac{3}{4}\text{ feet} ;; 5\tfrac34\text{ feet}
- 5\frac{3}{4}\text{ feet} ;; 5.75\text{ inches}
+ 25\% ;; 25 \%
+ 25\% ;; 0.25
+ 25\% ;; 25
+ 25\% ;; \frac{1}{4}
- 25\% ;; 2500\%
- 25\% ;; 0.25\%
- 0.5 ;; 5\%
+ 33\frac{1}{3}\% ;; \frac13
+ 33\frac{1}{3}\% ;; \frac{100}{3}\%
- 33\frac{1}{3}\% ;; 33\%
- 33\frac{1}{3}\% ;; 33.3\%
+ 150\% ;; 1.5
+ 150\% ;; 150
- 150\% ;; 15\%
+ \frac{1}{2} ;; 50\%
+ 3 ;; 3\text{ cm}
+ 3 ;; 3\text{ units}
- 3 ;; 3\text{ squared}
- 3 ;; 3\text{ tens}
- 3 ;; 3\text{ factorial}
- 3 ;; 3 \text{ (wrong)}
+ \pi ;; \pi\text{ units}
- x+1 ;; x+1\text{ is false}
+ \frac{\pi}{6} ;; 30^\circ
+ 36\pi ;; 36\pi\text{ cm}^2
+ 5 \text{ cm} ;; 5
+ 5 \text{ cm} ;; 5\,\mathrm{cm}
+ 5 \text{ cm} ;; 5 centimetres
- 5 \text{ cm} ;; 5\text{ mm}
- 5 \text{ cm} ;; 5\text{ inches}
+ 10 \text{ m/s} ;; 10\text{ meters per second}
+ 10 \text{ m/s} ;; 10\,\frac{\text{m}}{\text{s}}
+ 10 \text{ m/s} ;; 10 m/s
+ 10 \text{ m/s} ;; 10\text{ m}\cdot\text{s}^{-1}
- 10 \text{ m/s} ;; 10\text{ km/h}
+ 2 \text{ hours} ;; 2\text{ hrs}
+ 2 \text{ hours} ;; 2\text{ hr}
+ 2 \text{ hours} ;; 2 h
- 2 \text{ hours} ;; 2\text{ minutes}
+ \$32 ;; \text{\$}32
- \$32 ;; 32\text{ euros}
- \$32 ;; \$3.2
+ 8 \text{ MW} ;; 8\text{ megawatts}
- 8 \text{ MW} ;; 8\text{ kW}
+ 6 \text{ N m} ;; 6\text{ newton meters}
+ 6 \text{ N m} ;; 6\text{ Nm}
- 6 \text{ N m} ;; 6\text{ m}
+ 20^\circ\text{C} ;; 20°C
+ 20^\circ\text{C} ;; 20\ ^\circ C
- 20^\circ\text{C} ;; 20\text{ K}
+ \$4.50 ;; 4.50\text{ dollars}
+ \$4.50 ;; 450\text{ cents}
- \text{even} ;; \text{even or odd}
- \text{Evelyn} ;; \text{not Evelyn}
+ \text{Evelyn} ;; Evelyn
- \text{circle} ;; \text{a line}
+ \text{does not exist} ;; \text{DNE}
+ \text{does not exist} ;; does not exist
+ \text{does not exist} ;; \text{Does not exist}
- \text{undefined} ;; \text{defined}
- red and blue ;; \text{red}
+ \text{isosceles triangle} ;; \text{an isosceles triangle}
- \text{isosceles triangle} ;; \text{triangle}
- \$32 ;; \$32\text{ is wrong}
- \$32 ;; \$32\text{ or so}
- B ;; \text{(B) is wrong}
- 3 ;; 3\text{ quarters}
- 28\% ;; 28\%\text{ is wrong}
- 5\text{ cm} ;; 5\text{ cm or mm}
- 5\text{ cm} ;; 5\text{ cm is wrong}
- \text{even} ;; \text{even is wrong}
- \text{even} ;; \text{not even}
- (1,2) ;; (1,2)\text{ is wrong}
- x+1 ;; x+1\text{ units wrong}
+ 3\text{ feet } 6\text{ inches} ;; 42\text{ inches}
+ 2 hours 30 minutes ;; 2.5\text{ hours}
+ 5\text{ hours and }30\text{ minutes} ;; 5.5\text{ h}
+ 2\text{ h } 30 \text{ min} ;; 150\text{ minutes}
- 2 hours 30 minutes ;; 2\text{ hours}
- 2 hours 30 minutes ;; 30\text{ minutes}
- 5\text{ cm and }7\text{ cm} ;; 12\text{ cm}
- 5 ;; 5\text{ m } 3\text{ m}
+ B ;; \text{B: } 12
+ 5\text{ cm} ;; 5\text{ (cm)}
+ 5 ;; 5\ (\text{cm}^2)
- 5 ;; 5\ (\text{wrong})
"""


@pytest.mark.parametrize('case', read_cases(CASES), ids=str)
def test_words_and_units(case):
  check(case)


@pytest.mark.parametrize('answer', [r'5\text{ m}\mu', r'5\text{ u}', '5 k', r'5 \Omega', 'u'])
def test_a_prefix_without_a_unit_is_read_without_harm(answer):
  assert not grade_math.is_equal('7', answer)
