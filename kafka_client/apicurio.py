"""An archive for the import of Apicurio's administrative API: schemas under given ids.

The format is that of an export of version 3.3, reduced to what the import needs.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Collection, Mapping
from hashlib import sha256

IMPORT = "/apis/registry/v3/admin/import"
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


# Appended to a text: the same schema, but another text, one for each id.
_BLANKS = str.maketrans("01", " \t")


def _distinct(schemas: Mapping[str, Collection[tuple[int, str]]], known: Collection[str]) -> dict[int, str]:
    """A text for each id. A registry stores each text once: unchanged for the newest id of those that are not known."""
    newest: dict[str, int] = {}
    texts = {schema_id: text for entries in schemas.values() for schema_id, text in entries}
    for schema_id, text in sorted(texts.items()):
        newest[text] = schema_id
    return {
        schema_id: text
        if newest[text] == schema_id and text not in known
        else text + f"{schema_id:b}".translate(_BLANKS)
        for schema_id, text in texts.items()
    }


def archive(schemas: Mapping[str, Collection[tuple[int, str]]], known: Collection[str] = ()) -> bytes:
    """The archive of ids and texts by subject, which may have had several; subjects of one id have one text.

    `known`: the texts that the registry has already.
    """
    # Global ids are of versions; the time in µs is above those of the registry and of earlier archives.
    first_global_id = time.time_ns() // 1_000
    versions = [(subject, schema_id) for subject, entries in schemas.items() for schema_id, _ in entries]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:

        def write(name: str, content: object) -> None:
            file.writestr(name, json.dumps(content))

        write(
            "manifest-1970-01-01T00:00:00.000Z.Manifest.json",
            _MANIFEST,
        )
        # Contents first: the versions refer to them.
        for schema_id, text in sorted(_distinct(schemas, known).items()):
            digest = sha256(text.encode()).hexdigest()
            content = {"contentId": schema_id, "canonicalHash": digest, "contentHash": digest}
            kind = {"artifactType": "AVRO", "contentType": "application/json", "serializedReferences": None}
            write(f"content/{digest}.Content.json", content | kind)
            file.writestr(f"content/{digest}.Content.data", text)
        for subject in schemas:
            artifact = {"artifactId": subject, "artifactType": "AVRO"}
            write(
                f"groups/default/artifacts/{subject}/MetaData.Artifact.json", artifact | _NO_NAME | _NO_TIME
            )
        for number, (subject, schema_id) in enumerate(versions, first_global_id):
            # Numbered by the id, so that one that is restored later is another version.
            version = {"globalId": number, "artifactId": subject, "version": str(schema_id)}
            state = {"versionOrder": schema_id, "state": "ENABLED", "contentId": schema_id}
            write(
                f"groups/default/artifacts/{subject}/versions/{schema_id}.ArtifactVersion.json",
                version | state | _NO_NAME | _NO_TIME,
            )
        for subject, entries in schemas.items():
            names = [str(schema_id) for schema_id, _ in sorted(entries)]
            branch = {"artifactId": subject, "branchId": "latest", "systemDefined": True, "versions": names}
            write(f"groups/default/artifacts/{subject}/branches/latest.Branch.json", branch | _NO_TIME)
    return out.getvalue()
