"""What a job will ask and cost, stage by stage, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.contracts import Limits, Price
from app.errors import BadRequest
from app.jobs.spec import JobSpec, Money
from app.methods import Shape, Stage

WIRE_OVERHEAD = 1.15  # requests never fill the rate limit exactly: p90 of the wall time


@dataclass(frozen=True)
class Plan:
    """How the queries of a job are shared out. All figures are queries."""

    probe: int  # plain program on train and val: pays for baselines and mapping
    learning: int  # what the method may use, probe included
    test: int  # reserved from the start: plain and final program on the test split
    limit: int  # what both caps allow
    views: int  # queries per prediction the limits allow
    stages: tuple[Stage, ...]

    @property
    def planned(self) -> int:
        return min(self.limit, sum(stage.queries for stage in self.stages) + self.test)


def plan(spec: JobSpec, counts: dict[str, int], target_labels: int, source_labels: int, price: Price) -> Plan:
    """Share out the queries. `counts` are images per split.

    Raises BadRequest `budget_too_small`, with the number that would do, when the caps do not pay for one
    pass over training and validation images and the final test.
    """
    limit = spec.query_limit(price.micros, price.currency)
    method = spec.method.build()
    probe = counts["train"] + counts["val"]
    views = 1 if method.name == "baseline" else spec.limits.queries_per_prediction
    affordable = [
        r for r in range(views, 0, -1) if probe + counts["test"] * (1 + (r if r > 1 else 1)) <= limit
    ]
    least = probe + 2 * counts["test"]
    if not affordable:
        raise _too_small(spec, limit, least, price)
    test = counts["test"] * (1 + affordable[0])
    learning = limit - test
    shape = Shape(
        train=counts["train"],
        val=counts["val"],
        target_labels=target_labels,
        source_labels=source_labels or None,
        queries=learning,
        queries_per_prediction=affordable[0],
    )
    return Plan(probe, learning, test, limit, affordable[0], tuple(method.plan(shape)))


def _too_small(spec: JobSpec, limit: int, least: int, price: Price) -> BadRequest:
    money = Money.of(least * price.micros, price.currency)
    by_money = spec.limits.max_queries >= least
    return BadRequest(
        f"The limits allow {limit} queries; one pass over the images and the final test need {least}.",
        code="budget_too_small",
        param="limits.budget" if by_money else "limits.max_queries",
        hint=f"Allow at least {least} queries ({money.amount} {money.currency}), or use fewer images.",
    )


def quote(
    spec: JobSpec,
    plan: Plan,
    price: Price,
    limits: Limits,
    test_images: int,
    warnings: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The quote document: queries and cost by stage, wall time at the rate limit, cost per prediction."""

    def cost(queries: int) -> dict[str, str]:
        return Money.of(queries * price.micros, price.currency).model_dump()

    stages = [*plan.stages, Stage("test", plan.test)]
    images_per_second = limits.requests_per_second * limits.max_batch
    seconds = plan.planned / images_per_second
    return {
        "object": "reprogramming.quote",
        "queries": {"planned": plan.planned, "limit": plan.limit, "reserved_for_test": plan.test},
        "cost": {"planned": cost(plan.planned), "limit": cost(plan.limit)},
        "stages": [
            {
                "name": s.name,
                "queries": s.queries,
                "cost": cost(s.queries),
                "seconds": round(s.queries / images_per_second, 1),
            }
            for s in stages
        ],
        "wall_time_seconds": {"p50": round(seconds, 1), "p90": round(seconds * WIRE_OVERHEAD, 1)},
        "per_prediction": [{"queries": r, "cost": cost(r)} for r in (1, 2, 4, 8)],
        "method": {"type": spec.method.type},
        "test_images": test_images,
        "warnings": list(warnings),
    }
