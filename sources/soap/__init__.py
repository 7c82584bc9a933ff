"""SOAP payments: what the payment service confirmed, page by page, into payment-confirmations."""
