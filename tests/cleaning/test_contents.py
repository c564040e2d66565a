"""Numbers, addresses, brackets and markup: pairs that people wrote in many ways, and planted faults."""

from __future__ import annotations

import pytest
from steps_run import fates, run, step_of, table_of

from hf_nmt.cleaning.contents import numbers


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("Es kostet 1.000,50 Euro.", "It costs 1,000.50 euros."),
        ("Um 19.30 Uhr", "At 7:30 pm"),
        ("Um 19 Uhr", "At 7 pm"),
        ("Um 19:00 Uhr", "At 7 pm"),
        ("Die 90er", "The 1990s"),
        ("Im 19. Jahrhundert", "In the 1800s"),
        ("12\uc8703\ucc9c\uc5b5 \ubc88", "12.3 trillion times"),
        ("1\uc5b51\ucc9c\ub9cc \ub2ec\ub7ec", "$110 million"),
        ("1\ub9cc8500", "18,500"),
        ("3\uc2dc45\ubd84", "3:45"),
        ("9\uc6d4 11\uc77c, 4\uac1c", "4 on Tuesday in September"),
        ("240 km", "150 miles"),
        ("An 17 Orten, 10km entfernt", "Seventeen places, 6 miles (10-km) away"),
        ("2 Bomben, 15m entfernt", "The bombs were 15 meters (49 feet) from each other"),
        ("Auf 2956 m ist er einer", "Standing on this 9,700-foot peak he is No. 1"),
        ("Zwei Hunde", "2 dogs"),
        ("Zwei Hunde und 3 Katzen", "2 dogs and three cats"),
        ("Um 7:15 Uhr (12:15 Uhr in London)", "At 0715 (1215 GMT)"),
        ("Das 2. Leben nach der Arbeit von 9 bis 5", "The second life after 9 to 5"),
        ("\uff11\uff12 Hunde", "12 dogs"),
        ("12 000 Leute", "12,000 people"),
    ],
)
def test_numbers_that_may_be_the_same(source, target):
    assert fates(step_of("numbers"), [(source, target)]) == [None]
    assert fates(step_of("numbers"), [(target, source)]) == [None]


@pytest.mark.parametrize(
    ("source", "target", "left"),
    [
        ("Nummer 5", "Number 7", "5 | 7"),
        ("1.050 Grad", "1,051 degrees", "1050 | 1051"),
        ("Von 1950 bis 1990", "From 1910 to 1990", "1950 | 1910"),
        ("3 und 4", "3 and 14", "4 | 14"),
        ("3 Hunde", "5 dogs", "3 | 5"),
        ("2956 m", "3000 m", "2956 | 3000"),
        ("1" * 5000, "2" * 5000, "1" * 5000 + " | " + "2" * 5000),
    ],
)
def test_numbers_that_differ(source, target, left):
    _, gone = run(step_of("numbers"), [table_of([(source, target)])])
    assert [(row["reason"], row["detail"]) for row in gone] == [("number_mismatch", left)]


def test_numbers_of_any_size():
    assert numbers("9" * 9000) == ["9" * 9000]
    assert numbers("9" * 9000 + "\ub9cc") == ["9" * 9000]
    assert numbers("1.5\uc5b5, 2\ucc9c 3") == ["150000000", "2003"]


def test_links():
    pairs = [
        ("Siehe https://a.example/de.", "See https://a.example/en."),
        ("Siehe https://a.example/", "See there."),
        ("An ich@a.example", "To me@a.example"),
        ("An Ich@a.example", "To ich@a.example."),
        ("www.a.example und www.b.example", "www.a.example"),
        ("Mehr auf www.a.example", "There is more on its site"),
    ]
    assert fates(step_of("links"), pairs) == [None, "link_mismatch", "link_mismatch", None, "link_mismatch", None]


def test_brackets():
    pairs = [
        ("Der (alte) Hund", "The (old) dog"),
        ("Der (alte) Hund", "The (old dog"),
        ("Der (alte Hund", "The (old dog"),
        ("a) Hunde :)", "a) dogs :-("),
        ('Er rief: "Ja!', "He cried: 'Yes!'"),
        ("Er rief: \u201eJa!\u201c", 'He cried: "Yes!"'),
        ('Ein 5" Rohr', "A 5 inch pipe"),
        ("Der [(alte]) Hund", "The old dog"),
    ]
    wrong = [1, 4, 7]
    expected = ["bracket_mismatch" if number in wrong else None for number in range(len(pairs))]
    assert fates(step_of("brackets"), pairs) == expected


@pytest.mark.parametrize(
    "text",
    ["<b>Der Hund", "Hund</p>", "Hund<br />", '<a href="x">Hund', "Hund &amp; Katze", "&#39;", "[b]Hund[/b]",
     "{{Hund}}", "[[Hund]]", "<!-- Hund", "{\\an8}", "\\textbf{Hund}", 'class="dog" Hund'],
)  # fmt: skip
def test_markup(text):
    assert fates(step_of("markup"), [(text, "dog"), ("Hund", text)]) == ["source_markup", "target_markup"]


@pytest.mark.parametrize(
    "text", ["3 < 5 und 7 > 2", "Hund & Katze", "[sic]", "{Hund}", "Ich <3 dich", "A&B; C", "<<Hund>>", "x <- y"]
)
def test_no_markup(text):
    assert fates(step_of("markup"), [(text, text)]) == [None]
