"""Response models of payments. Money is a string of an exact decimal; moments are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import FUTURE_SALES, NEGATIVE, Window

Status = Literal["PENDING", "UNPAID", "CONFIRMED", "AMOUNT_MISMATCH", "REFUNDED"]
_STATUS = Field(
    description="PENDING: no payment yet. UNPAID: none within 7 days. CONFIRMED. AMOUNT_MISMATCH: the confirmed "
    "amount is not the sale's in its currency. REFUNDED: all payments were refunded."
)
_AMOUNT = Field(examples=["1234.5000"])


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class JoinFreshness(_Shown):
    """Up to when the answer is complete."""

    watermark: datetime | None = Field(
        description="Every sale and every payment recorded up to it is joined."
    )
    updated_at: datetime | None = Field(description="When one of the selected sales last changed.")


class SummaryFreshness(JoinFreshness):
    future_sales: int = FUTURE_SALES


class StatusRow(_Shown):
    status: Status = _STATUS
    currency: str
    sales_count: int
    amount: str = _AMOUNT


class CityStatusRow(StatusRow):
    country: str
    city: str


class PaymentsSummary(_Shown):
    window: Window
    by_status: list[StatusRow] = Field(description="Over all cities, for each currency.")
    data: list[CityStatusRow]
    negative_groups: int = NEGATIVE
    freshness: SummaryFreshness
    generation: int = Field(description="The computation that this answer comes from.")


class SaleOfSource(_Shown):
    source: str
    status: Status = _STATUS
    sold_at: datetime
    country: str
    city: str
    salesman_id: str
    salesman_name: str
    product: str
    quantity: int
    amount: str = _AMOUNT
    currency: str
    sales_count: int = Field(description="1. Below 0: the source reversed a sale that it never recorded.")


class Payment(_Shown):
    payment_id: str
    amount: str = _AMOUNT
    currency: str
    status: Literal["CONFIRMED", "REFUNDED"] = Field(description="As last confirmed.")
    confirmed_at: datetime


class Sale(_Shown):
    sale_id: str
    sales: list[SaleOfSource] = Field(description="One, or one for each source that has the id.")
    payments: list[Payment]
    ambiguous: bool = Field(description="Several sources have the id: the payments join none of them.")
    freshness: JoinFreshness
    generation: int = Field(description="The computation that this answer comes from.")
