"""What makes a payment confirmation valid, for the source that writes it and the pipelines that read it.

The WSDL says the same where XML Schema can; lengths are in bytes here, because keys and indexes count bytes.
"""

from __future__ import annotations

from decimal import Decimal

from contracts.calendar import FIRST_DAY, LAST_DAY

CONFIRMED, REFUNDED = "CONFIRMED", "REFUNDED"
STATUSES = (CONFIRMED, REFUNDED)
# A group's key is a key of the results database too, where an index entry ends at 2,704 bytes.
MOST_PAYMENT_ID_BYTES = 256
# As for sales: what no sale may have, no payment can name.
MOST_SALE_ID_BYTES = 1_000
# decimal(18,4), as in the sales table.
AMOUNT_LIMIT = Decimal(10**14)
# `confirmed_at` is in [FIRST_CONFIRMED_DAY, LAST_CONFIRMED_DAY), the range in which calendars can reckon.
FIRST_CONFIRMED_DAY, LAST_CONFIRMED_DAY = FIRST_DAY, LAST_DAY
