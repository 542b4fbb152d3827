"""The command line: ``dufm reproduce | list | claims | figures | best``."""

import argparse
import atexit
import os
import signal
import sys
from typing import Any

import dufm
from dufm._error import DufmError, needs
from dufm.companion import claims, files, pages
from dufm.companion.parameters import declared, title
from dufm.companion.words import did_you_mean

COMMANDS = ("reproduce", "list", "claims", "figures", "best")


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


def _command(text):
    if text not in COMMANDS:
        raise argparse.ArgumentTypeError(f"unknown command {text!r}; {did_you_mean(text, COMMANDS)}")
    return text


def parser():
    """The argument parser."""
    main = Parser(prog="dufm", description="Companion to The Implicit Bias of Depth: run and check its notebooks.")
    main.add_argument("--version", action="version", version=f"dufm {dufm.__version__}")
    commands = main.add_subparsers(dest="command", metavar="command")
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
        help="set a parameter; may be repeated (`dufm list NN` shows them)",
    )
    run.add_argument(
        "--jobs",
        type=_jobs,
        metavar="N",
        help="processes: notebooks at once, and their sweeps where cores are left (default: as there is room)",
    )
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    run.add_argument(
        "--cluster", metavar="ADDRESS", help="dask scheduler for the sweeps inside notebooks, tcp://host:8786"
    )
    run.add_argument("--out", metavar="DIR", help="output folder (default: out in the checkout)")
    commands.add_parser("claims", help="show the claims and what was published")
    show = commands.add_parser("list", help="show the notebooks and their minutes; with numbers, their parameters")
    show.add_argument("notebooks", nargs="*", metavar="NN", help="number or name")
    draw = commands.add_parser("figures", help="draw the figures again from their saved numbers")
    draw.add_argument("notebooks", nargs="*", metavar="NN", help="number or name; all of them if none is given")
    draw.add_argument("--out", metavar="DIR", help="output folder (default: out in the checkout)")
    known = commands.add_parser("best", help="show the best solution known for K classes at depth L")
    searched = "number of classes; above 12 it is a search, of seconds at 16 and of many minutes at 40"
    known.add_argument("num_classes", type=int, metavar="K", help=searched)
    known.add_argument("depth", type=int, metavar="L", help="weight matrices, the features included")
    return main


def _best(arguments):
    print(dufm.best(arguments.num_classes, arguments.depth))


def _reproduce(arguments):
    from dufm.companion.reproduce import reproduce

    given: dict[str, Any] = {}
    extra = [] if arguments.budget is None else [("budget", arguments.budget)]
    for name, value in arguments.parameters + extra:
        if given.get(name, value) != value:
            raise DufmError(f"{name} is given twice: {given[name]!r} and {value!r}")
        given[name] = value
    return reproduce(
        arguments.notebooks,
        given,
        jobs=arguments.jobs or files.processes(),
        device=arguments.device,
        out=arguments.out,
        cluster=arguments.cluster,
    )


def _claims(_):
    records = claims.recorded()
    for claim in claims.ledger().values():
        record = records.get(claim.id)
        found = f"{record.shown}, {record.verdict}" if record else "not run"
        print(f"{claim.id}  {claim.statement}\n    {claim.quantity}: expected {claim.expected}, {found}")
    print(f"\n{claims.counts(records)}")


def _list(arguments):
    from dufm.companion.reproduce import select

    seconds = pages.seconds()
    for name in select(arguments.notebooks):
        time = f"{seconds[name] / 60:5.1f} min" if name in seconds else "        -"
        print(f"{time}  {name}: {title(name)}")
        for parameter in declared(name) if arguments.notebooks else ():
            print(f"    {parameter.name} = {parameter.default!r}: {parameter.meaning} ({parameter.describe()})")


def _figures(arguments):
    from dufm.companion.reproduce import folder_for, select

    numbers = {name[:2] for name in select(arguments.notebooks)}
    with folder_for(arguments.out) as out:
        os.environ["DUFM_OUT"] = str(out)
        from dufm.companion import figures  # loads matplotlib, after the cheap refusals

        found = [path for path in sorted((files.root() / "figures").glob("*.json")) if path.name[:2] in numbers]
        for path in found:
            figures.write(path.stem, figures.origin(path.stem))
    print(f"{len(found)} figures drawn into {out / 'figures'}")


def _interrupt_once(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a second Ctrl-C would ask for is on its way
    raise KeyboardInterrupt


def main(argv=None):
    """Run a command; bad arguments are one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that has no γ or ± shows a question mark
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
            signal.signal(signal.SIGINT, _interrupt_once)
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # what is done then is done
        argv = sys.argv[1:] if argv is None else argv
        if argv and not argv[0].startswith("-"):
            _command(argv[0])
        arguments = parser().parse_args(argv)
        command = {"reproduce": _reproduce, "claims": _claims, "list": _list, "figures": _figures, "best": _best}
        if arguments.command is None:
            parser().print_help()
            return 0
        if arguments.command != "best":
            files.root()  # before anything that only the notebooks' packages have
        return command[arguments.command](arguments) or 0
    except KeyboardInterrupt:
        print("dufm: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        said = needs("this command", error)
        if said is error:
            raise
        print(f"dufm: {said}", file=sys.stderr)
        return 2
    except (DufmError, argparse.ArgumentTypeError) as error:
        print(f"dufm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
