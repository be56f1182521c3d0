"""An audit as you hold it: its findings, in every format."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sgdph_fx.audits.document import document
from sgdph_fx.audits.entries import Findings
from sgdph_fx.errors import AuditError
from sgdph_fx.report.files import replacing
from sgdph_fx.report.shown import Shown
from sgdph_fx.report.tables import Document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Audit"]

VERSION = 1


@dataclass(frozen=True, slots=True, repr=False)
class Audit(Findings, Shown):
    """How diagonal the Hessian of each second-order parameter is, and how far each probe is off, on one batch.

    ``print(audit)`` shows it; a notebook and rich show it too.

    Args:
        model: The model's class.
        loss: Name of the loss function.
        value: The loss on the batch.
        training: Whether the model was in training mode.
        dtype: The dtype that was computed in.
        draws: Number of Rademacher probes for each parameter.
        seed: What decided the draws and the samples.
        parameters: How many second-order parameters the model has.
        rows: Those that were audited, in the model's order.
    """

    def to_json(self) -> str:
        """Indented ASCII JSON: ``version``, the fields above, and for each row also its errors."""
        rows = [
            {**asdict(row), "ones_error": row.ones_error, "rademacher_error": row.rademacher_error}
            for row in self.rows
        ]
        return json.dumps({"version": VERSION, **asdict(self), "rows": rows}, indent=2) + "\n"

    def plot(self, file: Path | str | None = None) -> Figure:
        """Draw shares and errors by parameter, and each estimate against the true diagonal.

        Args:
            file: Where to save the plot, in the format of its suffix, PNG without one; None saves nothing. A file
                that is there is replaced when the new one is complete.

        Raises:
            AuditError: if matplotlib is not installed or does not write this format, or no parameter has a diagonal
                to compare with.
        """
        require_drawable(file)
        from sgdph_fx.audits.plot import figure

        fig = figure(self)
        if file is not None:
            with replacing(file) as part:
                fig.savefig(part, format=_format_of(file), dpi=100)
        return fig

    def _document(self) -> Document:
        return document(self)


def require_drawable(file: Path | str | None) -> None:
    """Raise an :class:`AuditError` unless a plot can be drawn and saved there: before an audit rather than after it."""
    try:
        from matplotlib import backend_bases
    except ImportError as error:
        raise AuditError(
            "A plot needs matplotlib, which is not installed: `pip install 'sgdph-fx[plot]'`."
        ) from error
    formats = backend_bases.FigureCanvasBase.get_supported_filetypes()
    if file is not None and _format_of(file) not in formats:
        raise AuditError(
            f"A plot takes the format of its file's suffix, and matplotlib writes no {_format_of(file)!r}. It writes "
            f"{', '.join(sorted(formats))}."
        )


def _format_of(file: Path | str) -> str:
    return Path(file).suffix.removeprefix(".").lower() or "png"
