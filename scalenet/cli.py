"""The command line: `scalenet COMMAND`, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from scalenet.commands import check, data, info, plugins, report, scale, search, train, verify
from scalenet.console import show_warnings_plainly
from scalenet.errors import ScalenetError, unknown


class Commands(click.Group):
    """A group whose unknown commands get a did-you-mean."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that `args` begin with."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(ctx), listed_as="Commands")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="scalenet")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Where should the next unit of compute go: layers, channels or pixels?

    \b
    scalenet search --plugin mobilevit --data ./pets     finds the direction that pays on your pictures
    scalenet scale runs/mobilevit/<stamp> --flops 2G     builds the model for a budget along it
    scalenet train runs/mobilevit/<stamp>/model_2G.yaml --data ./pets
    scalenet data clean ./pets                           what is wrong with the pictures
    """


for command in (
    search.search,
    verify.verify,
    scale.scale,
    train.train,
    report.report,
    data.data,
    info.info,
    plugins.plugins,
    check.check,
):
    cli.add_command(command)


def main() -> None:
    """The console script: one sentence and exit code 2 for bad input, 130 for Ctrl-C."""
    show_warnings_plainly()
    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]  # anywhere on the line, as one adds it afterwards
    try:
        sys.exit(cli.main(arguments, prog_name="scalenet", standalone_mode=False))
    except ScalenetError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns the one into the other; a search's own says how to go on
        told = str(error.__cause__ or error) or "interrupted"
        click.echo(f"{told[0].upper()}{told[1:]}.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `scalenet ... | head`: whoever read has gone, and the flush at exit would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
