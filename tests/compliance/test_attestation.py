"""The attestation: readers that are not ours, its schema, and what its numbers mean."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from compliance import attestation, dsse
from compliance.attestation import LedgerReference, NoLedger, Subject
from compliance.errors import AttestationInvalid
from compliance.signing import SigningKey
from detectors.model import Digest, RunRecord
from tests.compliance.conftest import make_run

SCHEMA: dict[str, Any] = json.loads(resources.files("compliance").joinpath("attestation.schema.json").read_bytes())
SUBJECTS = (Subject("run.json", {"sha256": "1" * 64}, "application/json"), Subject("a", {"sha256": "2" * 64}, "text/x"))
RECORDED = LedgerReference("detector-pool/ledger/" + "0" * 32, "name+00000000+AAAA", 7)
UNRECORDED = NoLedger("there was none")


def sealed(key: SigningKey, ledger: LedgerReference | NoLedger = UNRECORDED) -> bytes:
    return attestation.seal(SUBJECTS, attestation.predicate_of(make_run(), ledger), key)


def statement(envelope: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return found


def test_pre_authentication_encoding_is_that_of_the_specification() -> None:
    """The example of the DSSE protocol's own text."""
    assert dsse.pae(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("ledger", [RECORDED, UNRECORDED])
def test_it_fits_its_schema(key: SigningKey, ledger: LedgerReference | NoLedger) -> None:
    """The schema in the package describes what is written, with and without a ledger."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(statement(sealed(key, ledger)), SCHEMA)


@pytest.mark.parametrize("part", ["_type", "subject", "predicateType", "predicate"])
def test_the_schema_asks_for_every_part(key: SigningKey, part: str) -> None:
    """A schema that takes anything would describe nothing."""
    told = statement(sealed(key))
    del told[part]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, SCHEMA)


def test_the_schema_knows_the_fields_of_the_model(key: SigningKey) -> None:
    """A field that is added to the predicate and not to its schema is not documented."""
    predicate = statement(sealed(key))["predicate"]

    assert set(SCHEMA["$defs"]["predicate"]["properties"]) == set(predicate)
    for name in predicate:
        less = statement(sealed(key))
        del less["predicate"][name]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(less, SCHEMA)


def test_other_peoples_readers_take_it(key: SigningKey) -> None:
    """securesystemslib verifies the envelope, in-toto's own library the statement."""
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.v1.statement import Statement as TheirStatement
    from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    data = sealed(key)
    envelope = Envelope.from_dict(json.loads(data))
    theirs = SSlibKey(key.public.id, "ed25519", "ed25519", {"public": key.public.raw.hex()})
    verified = envelope.verify([theirs], 1)
    parsed = ParseDict(json.loads(envelope.payload), StatementPb())
    TheirStatement.copy_from_pb(parsed).validate()

    assert list(verified) == [key.public.id]
    assert [subject.name for subject in parsed.subject] == ["a", "run.json"]
    envelope.payload = envelope.payload.replace(b'"whole":true', b'"whole":null')
    with pytest.raises(VerificationError):
        envelope.verify([theirs], 1)


def test_the_snapshots_root_is_made_as_documented() -> None:
    """Computed here by hand for four files: RFC 6962 over path, zero byte, digest, sorted by path."""
    run = make_run()
    leaves = [
        hashlib.sha256(b"\0" + file.path.encode() + b"\0" + bytes.fromhex(file.digest[7:])).digest()
        for file in sorted(run.files, key=lambda file: file.path.encode())
    ]
    assert len(leaves) == 4
    left = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    right = hashlib.sha256(b"\1" + leaves[2] + leaves[3]).digest()

    assert attestation.snapshot_root(run.files) == hashlib.sha256(b"\1" + left + right).hexdigest()
    assert attestation.snapshot_root(reversed(run.files)) == attestation.snapshot_root(run.files)
    renamed = msgspec.structs.replace(run.files[0], path="another.c")
    assert attestation.snapshot_root((renamed, *run.files[1:])) != attestation.snapshot_root(run.files)


def test_counts_are_those_of_the_run(run: RunRecord) -> None:
    """What could not be read at all is told apart from what a detector gave up on."""
    told = attestation.predicate_of(run, UNRECORDED)

    assert (told.units.planned, told.units.executed, told.units.unreadable) == (4, 4, 1)
    assert told.findings.count == 3
    assert [item.name for item in told.detectors] == ["power-of-ten-c", "ruff"]
    broken = msgspec.structs.replace(run, findings_digest=Digest("md5:0"))
    with pytest.raises(AttestationInvalid, match="sha256"):
        attestation.predicate_of(broken, UNRECORDED)


def test_only_the_signers_key_opens_it(key: SigningKey, tmp_path: Path) -> None:
    """And whatever is no envelope of one signature is refused in words."""
    other = SigningKey.load_or_create(tmp_path / "other")
    data = sealed(key)
    twice = json.loads(data)
    twice["signatures"] *= 2
    assert attestation.open_envelope(data, key.public).subject[0].name == "a"
    for spoilt, told in (
        (b"", "no DSSE envelope"),
        (b"{}", "no DSSE envelope"),
        (b"[" * 5000, "no DSSE envelope"),
        (json.dumps(twice).encode(), "not one signature"),
        (data.replace(b"in-toto+json", b"in-tato+json"), "not one signature"),
        (data.replace(b'"keyid":"', b'"keyid":"0'), "another key"),
        (data + b"\n", "spelled"),
    ):
        with pytest.raises(AttestationInvalid, match=told):
            attestation.open_envelope(spoilt, key.public)
    with pytest.raises(AttestationInvalid, match="signature"):
        attestation.open_envelope(data, other.public)
