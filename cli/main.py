"""``sgdph-convert``: make a model ready for SGD-PH from the command line."""

from __future__ import annotations

import click

from .audit import command as audit
from .convert import convert
from .diff import diff
from .errors import EXIT_CODES
from .group import ConvertByDefault
from .restore import restore
from .working import accept_any_letter

__all__ = ["main"]

PROGRAM = "sgdph-convert"
EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items())


@click.group(
    PROGRAM, cls=ConvertByDefault, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="sgdph-fx", prog_name=PROGRAM)
def main() -> None:
    """Make MODEL ready for SGD with Partial Hessian, and print what gets Hessian treatment and why.

    MODEL is a Python file or an importable module, with :NAME where it defines several models. The model
    is an nn.Module object, a function without required arguments that returns one, or a class made without
    arguments.

    \b
    Examples:
      sgdph-convert model.py
      sgdph-convert model.py:small --input 1,3,32,32 --output converted
      sgdph-convert torchvision.models:vgg19 --weights vgg19.safetensors
      sgdph-convert model.py --policy absorbing --rule 'head.*=first-order'
      sgdph-convert model.py --check reviewed/plan.json
      sgdph-convert diff reviewed/plan.json model.py --markdown
      sgdph-convert restore epoch90.pt --plan converted/plan.json --output plain.pt
    """
    accept_any_letter()


# A command lives in a file of its own, and has a line here.
main.add_command(convert)
main.add_command(audit)
main.add_command(diff)
main.add_command(restore)

if __name__ == "__main__":
    main(prog_name=PROGRAM)
