from collections import Counter

import pytest

from hf_nmt.planting import KINDS, RUN, plant

PAIRS = [
    (f"Der größte Bär läuft über {n} Brücken in {n}.", f"The largest bear runs over {n} bridges in it.")
    for n in range(400)
]
OTHERS = [[f"{code} {n}" for n in range(400)] for code in ("fr", "cs")]
NEAR = [(f"Ein Test mit der Zahl {n} darin", f"One test with the number {n} in it") for n in range(50)]
COUNTS = dict.fromkeys(KINDS, 20)


def planted(**changed):
    return plant(PAIRS, COUNTS | changed, 7, others=OTHERS, near=NEAR)


def test_as_many_are_spoilt_as_were_asked_for_and_each_as_its_kind_says():
    found = planted()
    assert Counter(kind for kind, _ in found.values()) == COUNTS
    assert found == planted() and found != plant(PAIRS, COUNTS, 8, others=OTHERS, near=NEAR)
    for place, (kind, (source, target)) in found.items():
        old = PAIRS[place]
        expected = {
            "empty": not (source.strip() and target.strip()) and ({source, target} & {*old}),
            "copy": source == target and source in old,
            "swapped": (target, source) == old,
            "language": (source, target)
            in [(old[0], side[place]) for side in OTHERS] + [(side[place], old[1]) for side in OTHERS],
            "shifted": source == old[0] and target == PAIRS[place + 1][1],
            "half": source == old[0] and old[1] == f"{target} {old[1][len(target) + 1 :]}",
            "mojibake": target == old[1] and source != old[0] and "r" in source,
            "markup": (source == old[0]) != (target == old[1]) and len(source + target) > len("".join(old)),
            "number": source == old[0] and target != old[1] and target.split()[:5] == old[1].split()[:5],
            "near": (source, target) not in PAIRS,
        }
        assert expected[kind], (kind, source, target)


def test_lines_are_shifted_in_runs_and_all_languages_sides_and_forms_come():
    found = planted()
    shifted = sorted(place for place, (kind, _) in found.items() if kind == "shifted")
    assert all(shifted[n] % RUN == n % RUN for n in range(len(shifted)))
    texts = {kind: [pair for one, pair in found.values() if one == kind] for kind in KINDS}
    assert {text[:3] for pair in texts["language"] for text in pair} >= {"fr ", "cs "}
    assert {bool(source.strip()) for source, _ in texts["empty"]} == {True, False}
    assert len(set(texts["near"])) == 20


def test_only_what_is_asked_for_is_planted():
    assert plant(PAIRS, {}, 7) == {}
    assert {kind for kind, _ in plant(PAIRS, {"half": 5}, 7).values()} == {"half"}
    with pytest.raises(ValueError, match="larger than population"):
        plant([("kein", "none")] * 50, {"number": 1}, 7)
