"""An archive that Apicurio's administrative API imports: schemas under ids that its compatible API then gives.

The form is that of an export of version 3.3, with what is needed of it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from hashlib import sha256

IMPORT = "/apis/registry/v3/admin/import"
# Of versions; far from what a registry that was emptied has given meanwhile.
FIRST_GLOBAL_ID = 1_000_000
_MANIFEST = {
    "systemVersion": "3.3.3",
    "systemName": "Apicurio Registry (SQL)",
    "systemDescription": "",
    "exportVersion": "3.0",
    "exportedOn": 1,
    "exportedBy": "",
    "dbVersion": "109",
}
_NO_TIME = {
    "groupId": None,
    "description": None,
    "owner": "",
    "createdOn": 1,
    "modifiedBy": "",
    "modifiedOn": 1,
}
_NO_NAME = {"name": None, "labels": None}


def archive(schemas: Mapping[str, tuple[int, str]]) -> bytes:
    """Ids and texts by subject; subjects of one id have one text."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:

        def write(name: str, content: object) -> None:
            made.writestr(name, json.dumps(content))

        write(
            "manifest-1970-01-01T00:00:00.000Z.Manifest.json",
            _MANIFEST,
        )
        # What is referred to stands first.
        for schema_id, text in sorted(set(schemas.values())):
            digest = sha256(text.encode()).hexdigest()
            content = {"contentId": schema_id, "canonicalHash": digest, "contentHash": digest}
            kind = {"artifactType": "AVRO", "contentType": "application/json", "serializedReferences": None}
            write(f"content/{digest}.Content.json", content | kind)
            made.writestr(f"content/{digest}.Content.data", text)
        for subject in schemas:
            artifact = {"artifactId": subject, "artifactType": "AVRO"}
            write(
                f"groups/default/artifacts/{subject}/MetaData.Artifact.json", artifact | _NO_NAME | _NO_TIME
            )
        for number, (subject, (schema_id, _)) in enumerate(schemas.items(), FIRST_GLOBAL_ID):
            version = {"globalId": number, "artifactId": subject, "version": "1", "versionOrder": 1}
            state = {"state": "ENABLED", "contentId": schema_id}
            write(
                f"groups/default/artifacts/{subject}/versions/1.ArtifactVersion.json",
                version | state | _NO_NAME | _NO_TIME,
            )
        for subject in schemas:
            branch = {"artifactId": subject, "branchId": "latest", "systemDefined": True, "versions": ["1"]}
            write(f"groups/default/artifacts/{subject}/branches/latest.Branch.json", branch | _NO_TIME)
    return out.getvalue()
