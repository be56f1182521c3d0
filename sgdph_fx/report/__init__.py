from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    what: str
    max_relative_difference: float


@dataclass(frozen=True)
class Report:
    plan: object
    check: object
