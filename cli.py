"""The ``fsmm`` command. Commands live in commands/; nothing heavy is imported until one runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ._version import __version__
from .commands import (
    cache,
    contents,
    doctor,
    encoder_tune,
    episodes,
    evaluate,
    extract,
    fit,
    methods,
    predict,
    report,
    runs,
    studies,
    suggest,
    sweep,
    trust,
    tune,
)
from .commands.console import Verbosity, set_verbosity
from .errors import FsmmError, UsageError
from .machine.interrupt import INTERRUPTED, InterruptedOnce

# A forked worker was once seen spinning inside MKL's own memory pool; fsmm is no slower without the pool.
os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")

app = typer.Typer(
    name="fsmm",
    help="Few-shot learning on multimodal video: extract features once, then evaluate every method over the cache.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"fsmm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; results and errors only.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what is done.")] = False,
) -> None:
    set_verbosity(Verbosity.QUIET if quiet else Verbosity.VERBOSE if verbose else Verbosity.NORMAL)


for group in (
    fit,
    predict,
    suggest,
    extract,
    encoder_tune,
    evaluate,
    episodes,
    runs,
    sweep,
    tune,
    studies,
    report,
    methods,
    cache,
    contents,
    doctor,
    trust,
):
    group.register(app)


def main() -> None:
    """Run the command line; a stated failure gives one sentence on standard error and an exit code, no traceback."""
    with InterruptedOnce() as interrupts:
        try:
            code = _run()
        except KeyboardInterrupt:  # The command had been interrupted already, and has said so.
            code = INTERRUPTED
        if code == INTERRUPTED:
            interrupts.is_over()
    sys.exit(code)


def _run() -> int:
    """Run the command that the arguments name, and return its exit code."""
    try:
        _refuse_empty(sys.argv[1:])
        # The standalone mode is off, so that interruption and usage errors get the exit codes and sentences of fsmm.
        code = app(prog_name="fsmm", standalone_mode=False)
    except FsmmError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("Interrupted; run the same command again to continue.")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        return _other(error)
    if code == INTERRUPTED:  # Newer parsers catch the interrupt themselves and return its code.
        _say("Interrupted; run the same command again to continue.")
    return code if isinstance(code, int) else 0


def _refuse_empty(arguments: list[str]) -> None:
    """Raises UsageError for an empty argument, which as a path would be the working folder, and means nothing else."""
    before = "the command"
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if not argument or (name.startswith("--") and sign and not value):
            raise UsageError(
                f"The argument after {name or before} is empty; a variable of the shell that is not set leaves that."
            )
        before = argument


def _other(error: Exception) -> int:
    """The exit code of an error that fsmm did not raise itself; a usage error of the parser is printed as a sentence.

    Raises the error again where neither the parser nor the system made it.
    """
    if isinstance(error, typer.Abort):
        _say("Interrupted; run the same command again to continue.")
        return INTERRUPTED
    sentence = getattr(error, "format_message", None)  # Usage errors of any version of the parser have it.
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(sentence and sentence(), err=True)
        return 2
    if sentence is not None:
        _say(f"{sentence().rstrip('.')}. See the command's --help.")
        return 2
    if isinstance(error, OSError):
        _say(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        return 1
    if isinstance(error, MemoryError):
        _say(
            "There is not enough memory for this; use fewer clips or streams, or a machine with more memory."
        )
        return 1
    raise error


def _say(sentence: str) -> None:
    typer.echo(f"fsmm: {sentence}", err=True)


if __name__ == "__main__":
    main()
