"""Is the Hessian diagonal, as (2) says, and what do the probes return? Measured on a person's own model."""

from sgdph_fx.audits.entries import AuditRow
from sgdph_fx.audits.result import Audit
from sgdph_fx.audits.run import audit

__all__ = ["Audit", "AuditRow", "audit"]
