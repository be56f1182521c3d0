from dataclasses import replace

import pytest

from sgdph_fx.plan.plan import Plan
from sgdph_fx.report import Check, Report
from sgdph_fx.report.summary import percent


def test_the_headline_says_what_was_decoupled_what_it_costs_and_how_the_model_was_read(plan: Plan) -> None:
    assert Report(plan, Check("outputs before and after", 3.21e-7)).headline == (
        "net.Net: 1 of 2 convolutions was decoupled: the bare one, which no norm follows. "
        "2 of 5 trainable parameters get Hessian treatment, which is 16 of 449 numbers (3.6%). "
        "One Hessian cycle takes 2 steps, one parameter at each. "
        "The model was traced symbolically, without running it; policy: see-through. "
        "Checked: outputs before and after; the largest relative difference is 3.2e-07."
    )


def test_a_check_that_was_not_made_is_not_passed_over(plan: Plan) -> None:
    assert "Not checked against the original." in Report(plan).headline


def test_an_exact_result_is_no_small_number(plan: Plan) -> None:
    assert "the largest relative difference is 0." in Report(plan, Check("outputs", 0.0)).headline


@pytest.mark.parametrize("check", [None, Check("outputs", 0.0)])
def test_where_nothing_was_decoupled_there_is_nothing_to_check(plan: Plan, check: Check | None) -> None:
    nothing_to_check = replace(plan, convolutions=plan.convolutions[:1])
    assert "hecked" not in Report(nothing_to_check, check).headline


def test_a_recorded_model_is_named_so(plan: Plan) -> None:
    assert (
        "recorded from a real run; policy: direct."
        in Report(replace(plan, way="recorded", policy="direct")).headline
    )


def test_without_convolutions_it_says_so(plan: Plan) -> None:
    assert "there is no convolution" in Report(replace(plan, convolutions=())).headline


def test_without_bare_convolutions_it_says_so(plan: Plan) -> None:
    report = Report(replace(plan, convolutions=plan.convolutions[:1]))
    assert "0 of 1 convolution was decoupled; a norm follows it." in report.headline


def test_a_rule_that_keeps_a_bare_convolution_shows(plan: Plan) -> None:
    kept = tuple(replace(row, decouple=False) for row in plan.convolutions)
    headline = Report(replace(plan, convolutions=kept)).headline
    assert (
        "0 of 2 convolutions were decoupled; 1 is bare, and the table says what decided otherwise."
        in headline
    )


def test_without_second_order_parameters_it_is_plain_sgd(plan: Plan) -> None:
    first_order = tuple(replace(row, order=1) for row in plan.parameters)
    headline = Report(replace(plan, parameters=first_order)).headline
    assert "No parameter gets Hessian treatment: training will be SGD with momentum." in headline
    assert "cycle" not in headline


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "0%"), (0.0001562, "0.016%"), (0.0999, "10%"), (0.1, "10%"), (0.254, "25%"), (1.0, "100%")],
)
def test_small_shares_keep_two_digits(share: float, words: str) -> None:
    assert percent(share) == words
