"""``sgdph-convert``: make a model ready for SGD-PH from the command line.

Until a model is read, nothing here needs torch: help, completion and complaints about usage come at once.
"""

from __future__ import annotations

import click

from .audit import command as audit
from .convert import convert
from .diff import diff
from .exit_codes import EXIT_CODES
from .group import ConvertByDefault
from .program import PROGRAM
from .restore import restore

__all__ = ["main"]

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items())


@click.group(
    PROGRAM, cls=ConvertByDefault, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="sgdph-fx", prog_name=PROGRAM)
def main() -> None:
    """Make MODEL ready for SGD with Partial Hessian, and print what gets Hessian treatment and why.

    MODEL is a Python file or an importable module, with :NAME where it defines several models. It may also be
    timm:NAME, torchvision:NAME or hf:PATH. The model is an nn.Module object, or a function or class that makes one,
    with arguments by --arg.

    Examples:
      sgdph-convert model.py
      sgdph-convert model.py:small --input 1,3,32,32 --output converted
      sgdph-convert torchvision:vgg19 --weights vgg19.safetensors
      sgdph-convert timm:resnet18 --arg num_classes=10 --full
      sgdph-convert model.py --policy absorbing --rule 'head.*=first-order'
      sgdph-convert model.py --check reviewed/plan.json
      sgdph-convert diff reviewed/plan.json model.py --markdown
      sgdph-convert restore epoch90.pt --plan converted/plan.json --output plain.pt
    """


# A command lives in a file of its own, and has a line here.
main.add_command(convert)
main.add_command(audit)
main.add_command(diff)
main.add_command(restore)

if __name__ == "__main__":
    main()
