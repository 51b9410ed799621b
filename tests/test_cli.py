"""Every command reads its arguments by the same types and ends in the same way."""

import argparse
import subprocess
import sys

import pytest

from benchmarks.core import GPA, UserError
from benchmarks.core.cli import gigapascals, positive, run_command, whole_number


def fails_with(error):
    def command():
        raise error

    return command


def test_a_command_that_succeeds_has_its_own_status(capsys):
    assert [run_command(lambda: 0), run_command(lambda: 1)] == [0, 1]
    assert capsys.readouterr().err == ""


def test_a_mistake_is_one_line_and_2(capsys):
    assert run_command(fails_with(UserError("no such model"))) == 2
    assert capsys.readouterr().err == "error: no such model\n"


def test_an_interrupt_is_130_and_says_how_to_go_on(capsys):
    assert run_command(fails_with(KeyboardInterrupt()), interrupted="run it again") == 130
    assert capsys.readouterr().err == "run it again\n"


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(fails_with(ZeroDivisionError()))


def test_a_reader_that_has_left_is_no_traceback():
    code = (
        "import sys; from benchmarks.core.cli import run_command; "
        "sys.exit(run_command(lambda: [print(i) for i in range(100_000)] and 0))"
    )
    command = f"{sys.executable} -c '{code}' | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_arguments_have_types():
    assert whole_number(1)("12") == 12
    assert positive("0.5") == 0.5
    assert gigapascals("2") == 2 * GPA
    for parse, text in ((whole_number(1), "0"), (positive, "nan"), (gigapascals, "-1")):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            parse(text)
