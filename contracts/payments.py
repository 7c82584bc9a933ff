"""Limits of a valid payment confirmation, for the source that writes it and the pipelines that read it.

The WSDL has the same limits where XML Schema can express them; lengths are in bytes here, as in keys and indexes.
"""

from __future__ import annotations

from decimal import Decimal

from contracts.calendar import FIRST_DAY, LAST_DAY
from contracts.texts import MOST_NAME_BYTES

CONFIRMED, REFUNDED = "CONFIRMED", "REFUNDED"
STATUSES = (CONFIRMED, REFUNDED)
MOST_PAYMENT_ID_BYTES = MOST_NAME_BYTES
# decimal(18,4), as in the sales table.
AMOUNT_LIMIT = Decimal(10**14)
# `confirmed_at` is in [FIRST_CONFIRMED_DAY, LAST_CONFIRMED_DAY), the range of calendars.
FIRST_CONFIRMED_DAY, LAST_CONFIRMED_DAY = FIRST_DAY, LAST_DAY
