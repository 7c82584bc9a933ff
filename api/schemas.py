"""Response models of the rankings. Money is a string of an exact decimal; moments are UTC."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.queries import Answer


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


FUTURE_SALES = Field(description="Sales in windows that have not begun yet; counted in theirs.")


class Window(_Shown):
    """Half-open `[start, end)`. Both are null only without a requested window, while none that has begun has data."""

    start: datetime | None
    end: datetime | None
    time_zone: str = Field(description="Where the window's bounds are midnight.", examples=["UTC"])


class Freshness(_Shown):
    """Up to when the answer is complete, and whether it can still change."""

    watermark: datetime | None = Field(description="Every sale recorded up to it is counted.")
    updated_at: datetime | None = Field(description="When one of the selected groups last changed.")
    is_final: bool = Field(
        description="The watermark is past the window's end and its grace: only late facts remain."
    )
    restated_at: datetime | None = Field(
        description="When the newest late fact of the selected groups was recorded."
    )

    future_sales: int = FUTURE_SALES


NEGATIVE = Field(
    description="Selected groups with more reversals than sales. They are in no list. Above 0, a source is broken: "
    "sales may be missing in another group."
)


class Late(_Shown):
    """Sales that came after the window's end and its grace. They are counted in the totals too."""

    currency: str
    count: int
    amount: str = Field(examples=["-19.9900"])


class CityRow(_Shown):
    rank: int = Field(description="Within the currency: total descending, then country and city.")
    city: str
    country: str
    currency: str
    total: str = Field(examples=["1234.5000"])
    sales_count: int


class SalesmanRow(_Shown):
    country: str
    rank: int = Field(description="Within the country and currency: total descending, then salesman_id.")
    salesman_id: str
    salesman_name: str | None = Field(description="The name in the newest sale seen.")
    currency: str
    total: str = Field(examples=["1234.5000"])
    sales_count: int


class _Top(_Shown):
    window: Window
    freshness: Freshness
    late: list[Late]
    negative_groups: int = NEGATIVE
    generation: int = Field(description="The computation that this answer comes from.")


class TopSales(_Top):
    data: list[CityRow]


class TopSalesmen(_Top):
    data: list[SalesmanRow]


def shown(answer: Answer) -> dict[str, object]:
    """The answer in the shape of `TopSales` and `TopSalesmen`."""
    return {
        "window": {
            "start": answer.window and answer.window.start,
            "end": answer.window and answer.window.end,
            "time_zone": answer.time_zone,
        },
        "data": answer.rows,
        "freshness": answer,
        "late": [
            {"currency": row.currency, "count": row.late_count, "amount": row.late_amount}
            for row in answer.late
        ],
        "negative_groups": answer.negative_groups,
        "generation": answer.generation,
    }
