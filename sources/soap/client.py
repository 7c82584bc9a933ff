"""Client of the payment service: zeep builds the request from the WSDL, and parses no response.

As of zeep 4.3.3: it takes only a part of a text that a processing instruction cuts, reads a boolean with blanks as
false, and looks for a DTD only after libxml2 has parsed it. Responses are parsed in one place, `pages`.
"""

from __future__ import annotations

from pathlib import Path

import zeep
from zeep.exceptions import ExternalReferenceForbidden
from zeep.wsse.username import UsernameToken

from contracts.settings import SoapSettings
from contracts.soap import NAMESPACE, WSDL
from sources.soap.errors import Untrusted
from sources.soap.pages import Page, Reader
from sources.soap.transport import Limits, Transport


class PaymentService:
    """One payment service."""

    def __init__(self, settings: SoapSettings, limits: Limits | None = None, wsdl: Path = WSDL) -> None:
        """Raises Untrusted if the address is not allowed, or the document names another one to load."""
        transport = Transport(wsdl, settings.soap_wsdl, settings.soap_hosts, limits or Limits())
        asking = zeep.Settings(
            forbid_dtd=True, forbid_entities=True, forbid_external=True, force_https=False, raw_response=True
        )
        password = settings.soap_password.get_secret_value()
        token = UsernameToken(
            settings.soap_username, password, use_digest=settings.soap_digest, zulu_timestamp=True
        )
        try:
            self._reader = Reader(wsdl)
            client = zeep.Client(str(wsdl), wsse=token, transport=transport, settings=asking)
        except ExternalReferenceForbidden as error:
            raise Untrusted(f"the WSDL names another document: {error.url}") from error
        # The address in the document is an example; the transport uses the configured one.
        self._ask = client.create_service(
            f"{{{NAMESPACE}}}PaymentsSoap", settings.soap_wsdl
        ).GetPaymentConfirmations

    def page(self, cursor: str, limit: int) -> Page:
        """The confirmations behind the cursor, at most about `limit`. Raises Unavailable, Faulted or Untrusted."""
        return self._reader.page(self._ask(cursor=cursor, limit=limit))
