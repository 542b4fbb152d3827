"""The command line: ``dufm reproduce | claims | list | figures``."""

import argparse
import os
import sys

from dufm import _checkout, claims, notebook
from dufm._checks import DufmError


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

    def error(self, message):
        """Refuse."""
        raise DufmError(message)


def _jobs(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!r}")
    return int(text)


def _assignment(text):
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    return name, value


def parser():
    """The argument parser."""
    main = Parser(prog="dufm", description="Companion to The Implicit Bias of Depth: run and check its notebooks.")
    commands = main.add_subparsers(dest="command", required=True, metavar="command")
    run = commands.add_parser("reproduce", help="run notebooks and compare their claims with the published ones")
    run.add_argument("notebooks", nargs="*", metavar="NN", help="number or name; all of them if none is given")
    run.add_argument("--budget", metavar="B", help="how much to compute: smoke, default or full")
    run.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        type=_assignment,
        metavar="name=value",
        help="set a parameter; may be repeated (`dufm list` shows them)",
    )
    run.add_argument(
        "--jobs",
        type=_jobs,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes: notebooks at once, and their sweeps where cores are left (default: one per core)",
    )
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    run.add_argument(
        "--cluster", metavar="ADDRESS", help="dask scheduler for the sweeps inside notebooks, tcp://host:8786"
    )
    run.add_argument("--out", metavar="DIR", help="output folder (default: out in the checkout)")
    commands.add_parser("claims", help="show the claims and what was published")
    commands.add_parser("list", help="show the notebooks and their parameters")
    draw = commands.add_parser("figures", help="draw the figures again from their saved numbers")
    draw.add_argument("notebooks", nargs="*", metavar="NN", help="number or name; all of them if none is given")
    draw.add_argument("--out", metavar="DIR", help="output folder (default: out in the checkout)")
    return main


def _reproduce(arguments):
    from dufm.reproduce import reproduce

    given = {}
    extra = [] if arguments.budget is None else [("budget", arguments.budget)]
    for name, value in arguments.parameters + extra:
        if given.get(name, value) != value:
            raise DufmError(f"{name} is given twice: {given[name]!r} and {value!r}")
        given[name] = value
    return reproduce(
        arguments.notebooks,
        given,
        jobs=arguments.jobs,
        device=arguments.device,
        out=arguments.out,
        cluster=arguments.cluster,
    )


def _claims(_):
    print(claims.plain_table(_checkout.names()))


def _list(_):
    for name in _checkout.names():
        print(f"{name}: {notebook.title(name)}")
        for parameter in notebook.declared(name):
            print(f"    {parameter.name} = {parameter.default!r}: {parameter.meaning} ({parameter.describe()})")


def _figures(arguments):
    from dufm.reproduce import select, writable

    names = select(arguments.notebooks)
    out = writable(arguments.out)
    os.environ["DUFM_OUT"] = str(out)
    from dufm import figures  # loads matplotlib, after the cheap refusals

    count = sum(figures.redraw(name) for name in names)
    print(f"{count} figures drawn into {out / 'figures'}")


def main(argv=None):
    """Run a command; bad arguments are one line on stderr and exit code 2."""
    try:
        arguments = parser().parse_args(argv)
        command = {"reproduce": _reproduce, "claims": _claims, "list": _list, "figures": _figures}
        return command[arguments.command](arguments) or 0
    except DufmError as error:
        print(f"dufm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
