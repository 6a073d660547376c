# SPDX-License-Identifier: Apache-2.0
import json
import math

from hypothesis import given
from hypothesis import strategies as st

from burnish.cli.compare import distinct
from burnish.cli.output import kept_for_json, print_json
from burnish.cli.progress_bar import Lines


def test_json_has_no_word_for_nan(capsys):
    print_json({"a": [math.nan, 1.5], "b": {"c": -math.inf}, 3: (1, "x")})
    assert json.loads(capsys.readouterr().out) == {
        "a": [None, 1.5],
        "b": {"c": None},
        "3": [1, "x"],
    }


def test_what_user_code_prints_stays_out_of_json(capsys):
    with kept_for_json(True):
        print("loading")
    with kept_for_json(False):
        print("shown")
    out, err = capsys.readouterr()
    assert (out, err) == ("shown\n", "loading\n")


def test_lines_come_seldom_and_name_the_stage():
    now = [100.0]
    lines: list[str] = []
    report = Lines(lines.append, lambda: now[0])
    for second in range(120):
        now[0] = 100.0 + second
        report("first" if second < 60 else "second", second % 60, 60)
    assert lines[0] == "burnish: 0 s: first 0/60"
    assert "burnish: 60 s: second 0/60" in lines
    assert len(lines) == 4  # at 0, 30, 60 and 90 s


@given(st.lists(st.sampled_from(["a", "b", "c/a"]), min_size=1, max_size=6))
def test_compared_models_have_names_of_their_own(arguments):
    names = distinct([one.rsplit("/")[-1] for one in arguments], arguments)
    assert len(set(names)) == len(arguments)
    assert all(name.startswith(one) for name, one in zip(names, arguments, strict=True)) or (
        len(set(arguments)) == len(arguments)
    )
