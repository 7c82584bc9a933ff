"""Log → totals: long-running workers that answer questions about sales-events, exactly once."""
