# SPDX-License-Identifier: Apache-2.0
"""What a command says, and exits with, when it does not succeed.

0    done, and the goal met
1    a fault of Burnish's own
2    wrong use: an argument, a file, a model that cannot be run, a package that is missing
3    the goal is not met, or not shown
130  interrupted
"""

from __future__ import annotations

import errno
import functools
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, cast

import typer

from burnish.cli.interrupt import interruptible
from burnish.cli.output import command_line, say
from burnish.core.errors import Broken, BurnishError

P = ParamSpec("P")
INTERRUPTED = 130
_SYSTEM = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def guarded(verb: Callable[P, None]) -> Callable[P, None]:
    """Returns the verb with its failures turned into one paragraph and an exit code.

    The verb takes the `context` that typer gives, which knows --debug; its `obj` becomes
    the function that raises KeyboardInterrupt once Ctrl-C was pressed.
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        context = cast(typer.Context, kwargs["context"])
        try:
            with interruptible() as context.obj:
                verb(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say("burnish: interrupted", stderr=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:  # the last place to say what went wrong
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output went away; typer ends quietly
            if context.find_root().params.get("debug"):
                traceback.print_exception(error, file=sys.stderr)
            text, code = explain(error)
            say(f"burnish: {text}", stderr=True)
            raise typer.Exit(code) from error

    return run


def explain(error: Exception) -> tuple[str, int]:
    """Returns the paragraph and the exit code for an error."""
    if isinstance(error, BurnishError) and not isinstance(error, Broken):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        place = f" ({error.filename})" if error.filename else ""
        return f"the system refused: {error.strerror}{place}", BurnishError.exit_code
    said = " ".join(str(error).split())
    kind = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
    return (
        f"this is a fault in Burnish, please report it: {kind}{said}. "
        f"To see where: {command_line('--debug')}",
        Broken.exit_code,
    )
