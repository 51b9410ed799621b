"""Every command reads its arguments by the same types and ends in the same way."""

import argparse
import errno
import os
import signal
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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_interrupt_a_command_once(name):
    """Thirty of them in a moment do not cut off what the command writes at its end."""
    code = f"""if True:
        import os, signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        from benchmarks.core.cli import run_command
        def command():
            try:
                os.kill(os.getpid(), signal.{name})
                time.sleep(20)
            finally:
                for _ in range(30):
                    os.kill(os.getpid(), signal.{name})
                print("written")
        status = run_command(command, interrupted="go on")
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        sys.exit(status)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("written\nTrue\n", "go on\n")
    assert done.returncode == 128 + getattr(signal, name)


def test_signals_that_are_ignored_stay_ignored_and_forks_end_by_them():
    code = """if True:
        import os, signal, sys, time
        from benchmarks.core.cli import run_command
        def command():
            os.kill(os.getpid(), signal.SIGHUP)
            pid = os.fork()
            if not pid:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            return 0
        sys.exit(run_command(command))"""
    command = ["bash", "-c", 'trap "" HUP; exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("-15\n", "", 0)


def shell(line, **variables):
    """A command that prints a letter beyond ASCII and `done` on stderr, in a line of a shell."""
    code = (
        "import sys; from benchmarks.core.cli import run_command; "
        "sys.exit(run_command(lambda: print(chr(197)) or sys.stderr.write('done') and 0))"
    )
    return subprocess.run(
        ["bash", "-c", line, sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )


def test_letters_that_the_encoding_lacks_are_written_as_their_codes():
    done = shell('"$0" -c "$1"', PYTHONIOENCODING="ascii")
    assert (done.stdout, done.stderr, done.returncode) == ("\\xc5\n", "done", 0)


@pytest.mark.parametrize(
    ("line", "stderr", "status"),
    [
        ('"$0" -c "$1" 2>&-', "", 0),
        ('"$0" -c "$1" >&-', "done", 0),
        ('"$0" -c "$1" <&- >&- 2>&-', "", 0),
        ('"$0" -c "$1" > /dev/full', "error: No space left on device\n", 2),
    ],
)
def test_closed_and_full_streams(line, stderr, status):
    done = shell(line)
    said = done.stderr.removeprefix("done") if status else done.stderr  # as stdout is buffered
    assert (said, done.returncode) == (stderr, status)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "x", "/data/a\nb"), "/data/a b: No space left on device"),
        (OSError(errno.EROFS, "x"), "Read-only file system"),
        (MemoryError(), "not enough memory: give the command more, or less to do at once"),
        (UserError("a\x1b[31m\nb"), "a\\x1b[31m b"),
    ],
    ids=str,
)
def test_what_the_system_refuses_is_one_line_and_2(error, line, capsys):
    assert run_command(fails_with(error)) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


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
