"""Log → totals: long-running workers that aggregate sales-events, exactly once."""
