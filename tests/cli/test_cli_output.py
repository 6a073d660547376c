# SPDX-License-Identifier: Apache-2.0
import json
import math
import signal
import subprocess
import sys

import pytest
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
        sys.stdout.write("loading\n")
    with kept_for_json(False):
        sys.stdout.write("shown\n")
    out, err = capsys.readouterr()
    assert (out, err) == ("shown\n", "loading\n")


def test_lines_come_seldom_and_name_the_stage():
    now = [100.0]
    lines: list[str] = []
    report = Lines(lines.append, lambda: now[0])
    for second in range(120):
        now[0] = 100.0 + second
        report("first" if second < 60 else "second", second % 60, 60)
    assert lines == [
        "burnish: 5 s: first 5/60",
        "burnish: 35 s: first 35/60",
        "burnish: 60 s: second 0/60",
        "burnish: 90 s: second 30/60",
    ]


INTERRUPT = """
import contextlib, os, signal, sys, time
from burnish.cli.interrupt import interruptible

start = time.monotonic()
try:
    with interruptible() as check:
        check()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)  # nothing is raised here
        if sys.argv[1] == "twice":
            os.kill(os.getpid(), signal.SIGINT)
        while sys.argv[1] != "checked":
            pass
        print("went on")
        check()
        print("not reached")
except KeyboardInterrupt:
    print("ended", time.monotonic() - start > 2.0)
with contextlib.suppress(KeyboardInterrupt):  # as Python has it again
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
    print("not reached")
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signals to hold back")
@pytest.mark.parametrize(
    ("how", "said"),
    [("checked", "went on\nended False\n"), ("twice", "ended False\n"), ("never", "ended True\n")],
)
def test_an_interrupt_ends_the_work_at_a_check_or_else_soon(how, said):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, how],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (said, "")


@given(st.lists(st.sampled_from(["a", "b", "c/a"]), min_size=1, max_size=6))
def test_compared_models_have_names_of_their_own(arguments):
    names = distinct([one.rsplit("/")[-1] for one in arguments], arguments)
    assert len(set(names)) == len(arguments)
    for name, argument in zip(names, arguments, strict=True):
        assert name.startswith(argument) or argument.endswith(name)
