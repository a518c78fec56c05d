"""
Verify an evidence folder with Python's standard library and nothing else: offline, reading only, following no link.

    python3 -I verify.py [FOLDER] [--public-key FILE]

FOLDER is the one that this file lies in when none is named; the file of a signed statement (of `evidence reperform` or
`evidence carry`) may stand in its place, and is shown. Exit code 0: all holds. 1: something does not. 2: wrong
use. Any Python from 3.9 on will do.

Whoever can forge a folder can put another file in this one's place. So bring your own copy of this file, whose sha256
is published with each release, and your own copy of the signer's public key, which came to you on another way.
`-I` keeps Python from importing anything that lies beside this file.

The parts: Ed25519 · spelling of JSON and base64 · the attestation · the ledger's checkpoint and proof · the files, and
what they must say · the verdict in words. Each `problem_...` returns what is wrong, or an empty text.

Sources: RFC 8032 (Ed25519); RFC 6962 and 9162 (Merkle trees); in-toto Statement v1; DSSE v1.0.2; C2SP signed-note and
tlog-checkpoint.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.isolated:  # before anything is imported that may lie beside this file
    sys.stderr.write("run it as: python3 -I verify.py [FOLDER] [--public-key FILE]\n")
    sys.exit(2)

import argparse
import base64
import collections
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ATTESTATION, PUBLIC_KEY = "attestation.intoto.jsonl", "public-key.pem"
CHECKPOINT, PROOF = "ledger-checkpoint", "ledger-proof.json"
APART = {ATTESTATION, PUBLIC_KEY, CHECKPOINT, PROOF}  # what the attestation cannot name, since it holds or follows it
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "urn:enterprise-detector-pool:predicate:static-analysis-run:v1"
MAX_BYTES = {ATTESTATION: 16 << 20, PUBLIC_KEY: 1024, CHECKPOINT: 64 << 10, PROOF: 2 << 20}
MAX_PATH = 63
MAX_KEY_BYTES = 16 << 10
HEX = set("0123456789abcdef")


class Invalid(Exception):
    """Something is not what it must be; says what."""


class Check(NamedTuple):
    """What was found of one file; `problem` is empty where it holds."""

    file: str
    problem: str


class Verdict(NamedTuple):
    """The answer of `verify`."""

    checks: list[Check]
    predicate: dict[str, Any] | None  # what the attestation says; None where its signature or spelling is not good
    key: bytes  # that checked the signature; empty where there was none
    trusted: bool  # whether the caller brought that key
    records: int  # of the ledger when it had the attestation; 0 where that is not shown

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not any(check.problem for check in self.checks)


# -- Ed25519 (RFC 8032 §5.1) -------------------------------------------------------------------------------------------
# Points of the curve -x² + y² = 1 + d x² y² over the integers modulo P, as (X, Y, Z, T): x = X/Z, y = Y/Z, x y = T/Z.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493  # order of the base point
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]


def added(p: Point, q: Point) -> Point:
    """Return the sum of two points (RFC 8032 §5.1.4)."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiplied(number: int, point: Point) -> Point:
    """Return a point added to itself `number` times; nothing here is secret, so time may tell of it."""
    if not 0 <= number < 1 << 256:
        raise Invalid("a factor is a number of 32 bytes")
    found: Point = (0, 1, 1, 0)
    for bit in bin(number)[2:]:
        found = added(found, found)
        if bit == "1":
            found = added(found, point)
    return found


def decoded_point(data: bytes) -> Point | None:
    """
    Return the point that 32 bytes stand for, or None where there is none (RFC 8032 §5.1.3).

    As OpenSSL does, and so that both give one verdict: a y of P or more is taken modulo P, and the sign of x = 0 is
    not looked at. Both occur in 26 encodings only, none of which is a key that anybody makes.
    """
    number = int.from_bytes(data, "little")
    y, sign = (number & ((1 << 255) - 1)) % P, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_ONE % P
    if len(data) != 32 or x * x % P != square:
        return None
    if x & 1 != sign:
        x = -x % P
    return x, y, 1, x * y % P


def encoded_point(point: Point) -> bytes:
    """Return the one encoding of a point (RFC 8032 §5.1.2)."""
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE = decoded_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` (64 bytes) over `message` is that of the public key `key` (RFC 8032 §5.1.7)."""
    point = decoded_point(key)
    number = int.from_bytes(signature[32:], "little")
    if point is None or BASE is None or len(signature) != 64 or number >= L:
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    minus: Point = (-point[0] % P, point[1], 1, -point[3] % P)
    challenge = multiplied(int.from_bytes(digest, "little") % L, minus)
    return encoded_point(added(multiplied(number, BASE), challenge)) == signature[:32]


# -- Spelling: JSON and base64 have one spelling for each content, so that no byte can change unnoticed ----------------


def decoded_base64(text: Any) -> bytes:
    """Return what standard base64 stands for; raises Invalid, also for another spelling of the same bytes."""
    if type(text) is not str or not text.isascii():
        raise Invalid("it holds something else than base64")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Invalid("it holds something else than base64") from None
    if base64.b64encode(data).decode() != text:
        raise Invalid("its base64 is not spelled as it was written")
    return data


def spelled(value: Any, ordered: bool = False) -> bytes:
    """Return the one spelling: no spaces, text as it is; keys as they stand, or ordered."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=ordered).encode()


def decoded_json(data: bytes, strict: bool = True) -> Any:
    """Return what JSON says; raises Invalid, and with `strict` also where it is not in the one spelling."""
    try:
        value = json.loads(data.decode())
        other = strict and spelled(value) != data
    except (ValueError, RecursionError):
        raise Invalid("it is no JSON") from None
    if other:
        raise Invalid("it is not spelled as it was written")
    return value


# p10: ignore[R1] as deep as the shape, which is written below by the maintainers
def fits(value: Any, shape: Any) -> bool:
    """Tell whether a value has these types and, in this order, these fields; a list stands for any number of items."""
    if isinstance(shape, dict):
        same = isinstance(value, dict) and list(value) == list(shape)
        return same and all(fits(value[name], inner) for name, inner in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    return type(value) is shape


# -- The attestation: an in-toto statement in a DSSE envelope ----------------------------------------------------------

ENVELOPE = {"payload": str, "payloadType": str, "signatures": [{"keyid": str, "sig": str}]}
SUBJECT = {"name": str, "digest": {"sha256": str}, "mediaType": str}
DETECTOR = {"name": str, "version": str, "codeDigest": str, "configurationDigest": str}
COUNTS = {"planned": int, "executed": int, "cached": int, "notAnalysed": int, "unreadable": int}
RECORDED = {"recorded": str, "origin": str, "verifierKey": str, "startIndex": int}
UNRECORDED = {"recorded": str, "reason": str}
PREDICATE = {
    "runId": str,
    "version": str,
    "started": str,
    "whole": bool,
    "problems": [str],
    "configurationDigest": str,
    "snapshot": {"merkleRoot": str, "files": int},
    "detectors": [DETECTOR],
    "units": COUNTS,
    "findings": {"count": int, "digest": str},
}


def signed_by(data: bytes, key: bytes) -> Any:
    """Return what `key` signed; raises Invalid where it did not, or where a spelling is not the one."""
    if not data.endswith(b"\n"):
        raise Invalid("it is no line")
    envelope = decoded_json(data[:-1])
    if not fits(envelope, ENVELOPE) or envelope["payloadType"] != PAYLOAD_TYPE or len(envelope["signatures"]) != 1:
        raise Invalid("it is no envelope with one signature")
    payload, kind = decoded_base64(envelope["payload"]), PAYLOAD_TYPE.encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    if not is_signed(key, decoded_base64(envelope["signatures"][0]["sig"]), signed):
        raise Invalid("its signature is not valid")
    if envelope["signatures"][0]["keyid"] != hashlib.sha256(key).hexdigest():
        raise Invalid("it names another key than the one that signed it")
    return decoded_json(payload)


def opened_envelope(data: bytes, key: bytes) -> dict[str, Any]:
    """Return the statement of a run that `key` signed; raises Invalid where it is none."""
    statement = signed_by(data, key)
    problem = problem_of_statement(statement) or problem_of_names(statement["subject"])
    if problem:
        raise Invalid(problem)
    return dict(statement)


def problem_of_statement(statement: Any) -> str:
    """Hold a statement's shape against the one that this version knows."""
    if not isinstance(statement, dict) or not isinstance(statement.get("predicate"), dict):
        return "it holds no statement"
    if statement.get("predicateType") != PREDICATE_TYPE or statement.get("_type") != "https://in-toto.io/Statement/v1":
        return "it says something that this version of verify.py does not know"
    told = statement["predicate"].get("ledger")
    recorded = isinstance(told, dict) and told.get("recorded")
    ledger = {"yes": RECORDED, "no": UNRECORDED}.get(recorded if isinstance(recorded, str) else "")
    shape = {"_type": str, "subject": [SUBJECT], "predicateType": str, "predicate": dict(PREDICATE, ledger=ledger)}
    if ledger is None or not fits(statement, shape):
        return "its statement is of another shape than this version of verify.py knows"
    return ""


def problem_of_names(subjects: list[dict[str, Any]]) -> str:
    """Check that each file is named once, in order, with its digest, and lies in the folder."""
    names = [subject["name"] for subject in subjects]
    if not names or names != sorted(set(names)):
        return "it names no file, one twice, or not in order"
    if not all(is_sha256(subject["digest"]["sha256"]) for subject in subjects):
        return "a file has no sha256"
    if any(not name or "/" in name or "\0" in name or name in {".", ".."} or name in APART for name in names):
        return "it names a file outside of the folder, or one that it cannot name"
    return ""


def is_sha256(text: str) -> bool:
    """Tell whether a text is 64 lower-case hexadecimal digits."""
    return len(text) == 64 and set(text) <= HEX


def named_key(data: bytes) -> str:
    """Return the id of the key that an envelope says it is signed with; empty where it names none."""
    try:
        envelope = decoded_json(data, strict=False)
    except Invalid:
        return ""
    known = isinstance(envelope, dict) and set(envelope) == set(ENVELOPE)
    if not known or not fits({name: envelope[name] for name in ENVELOPE}, dict(ENVELOPE, signatures=[dict])):
        return ""
    signatures = envelope["signatures"]
    whole = all(set(item) == {"keyid", "sig"} and fits(list(item.values()), [str]) for item in signatures)
    return str(signatures[0]["keyid"]) if signatures and whole else ""


# -- The ledger: a signed checkpoint (C2SP), and a record's path to its root (RFC 9162 §2.1.3.2) -----------------------


def opened_checkpoint(note: bytes, verifier_key: str, origin: str) -> tuple[int, bytes]:
    """Return how many records a signed checkpoint covers and their Merkle root; raises Invalid."""
    name, _, rest = verifier_key.partition("+")
    key_id, _, encoded = rest.partition("+")
    key = decoded_base64(encoded)
    note_id = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    if name != origin or name.split() != [name] or len(key) != 33 or key[0] != 1 or note_id.hex() != key_id:
        raise Invalid("the attestation names no key of this ledger")
    text, blank, signature = note.rpartition(b"\n\n")
    lines, mark = text.decode("utf-8", "replace").split("\n"), b"\xe2\x80\x94 " + origin.encode() + b" "
    if not blank or len(lines) != 3 or lines[0] != origin or not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]):
        raise Invalid("it is no checkpoint of the ledger that the attestation names")
    root = decoded_base64(lines[2])
    if len(root) != 32 or not signature.startswith(mark) or not signature.endswith(b"\n"):
        raise Invalid("it is no checkpoint of the ledger that the attestation names")
    data = decoded_base64(signature[len(mark) : -1].decode("utf-8", "replace"))
    if data[:4] != note_id or not is_signed(key[1:], data[4:], text + b"\n"):
        raise Invalid("its signature is not valid")
    return int(lines[1]), root


def opened_proof(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a proof, decoded, and the event of its record; raises Invalid."""
    if not data.endswith(b"\n"):
        raise Invalid("it is no line")
    proof = decoded_json(data[:-1])
    if not fits(proof, {"format": int, "origin": str, "index": int, "leaf": str, "path": [str]}):
        raise Invalid("it is no proof")
    proof["leaf"], proof["path"] = decoded_base64(proof["leaf"]), [decoded_base64(item) for item in proof["path"]]
    # A record in clear: P, four bytes of length, eight of index, 32 of link, the text, four of checksum.
    kind, length, index = proof["leaf"][:1], proof["leaf"][1:5], proof["leaf"][5:13]
    if proof["format"] != 1 or kind != b"P" or int.from_bytes(index, "big") != proof["index"]:
        raise Invalid("it holds no record in clear of its index")
    text = proof["leaf"][45 : 45 + int.from_bytes(length, "big")]
    record = decoded_json(text)
    if not fits(record, {"time": str, "event": dict}) or spelled(record["event"], True) != spelled(record["event"]):
        raise Invalid("its record is not spelled as it was written")
    return proof, dict(record["event"])


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Return the root that a path leads to from a record (RFC 9162 §2.1.3.2); raises Invalid for another length."""
    node, last = hashlib.sha256(b"\0" + leaf).digest(), size - 1
    if not 0 <= index < size or len(path) > MAX_PATH or any(len(sibling) != 32 for sibling in path):
        raise Invalid("its record is not among those of the checkpoint")
    for sibling in path:
        if not last:
            raise Invalid("it is longer than the tree is high")
        if index & 1 or index == last:
            node = hashlib.sha256(b"\1" + sibling + node).digest()
            zeros = (index & -index).bit_length() - 1 if index else 0
            index, last = index >> zeros, last >> zeros
        else:
            node = hashlib.sha256(b"\1" + node + sibling).digest()
        index, last = index >> 1, last >> 1
    if last:
        raise Invalid("it is shorter than the tree is high")
    return node


def check_ledger(folder: Path, predicate: dict[str, Any], attestation: str) -> tuple[list[Check], int]:
    """Check checkpoint and proof against the attestation; return how many records the ledger had with it, too."""
    ledger = predicate["ledger"]
    if ledger["recorded"] == "no":
        return [], 0
    told, size, root = "", 0, b""
    try:
        size, root = opened_checkpoint(read(folder, CHECKPOINT), ledger["verifierKey"], ledger["origin"])
    except Invalid as problem:
        told = str(problem)
    checks = [Check(CHECKPOINT, told)]
    told = "there is no valid checkpoint to hold it against" if told else ""
    wanted = {"type": "evidence.attested", "run_id": predicate["runId"], "attestation": attestation}
    try:
        proof, event = opened_proof(read(folder, PROOF))
        if proof["origin"] != ledger["origin"] or proof["index"] <= ledger["startIndex"]:
            told = "it is of another ledger, or its record stands before the run's beginning"
        elif any(event.get(name) != value for name, value in wanted.items()):
            told = "its record is of another run, or of another attestation of this run"
        elif not told and root_of(proof["leaf"], proof["index"], size, proof["path"]) != root:
            told = "it leads to another root than the checkpoint's"
    except Invalid as problem:
        told = str(problem)
    return [*checks, Check(PROOF, told)], 0 if told else size


# -- What the signed files must say: one function for each, given the run's record and the attestation's predicate -----


def raw_digest(text: str) -> bytes:
    """Return the 32 bytes of `sha256:` and 64 hexadecimal digits; raises Invalid."""
    if not text.startswith("sha256:") or not is_sha256(text[7:]):
        raise Invalid("a digest in it is none")
    return bytes.fromhex(text[7:])


def snapshot_root(files: list[dict[str, Any]]) -> str:
    """Return the Merkle root over the sources (RFC 6962 §2.1): leaves of path, zero byte, sha256, sorted by path."""
    leaves = sorted((file["path"].encode(), raw_digest(file["digest"])) for file in files)
    if len({path for path, _ in leaves}) != len(leaves):
        raise Invalid("a path in it stands for two files")
    nodes = [hashlib.sha256(b"\0" + path + b"\0" + digest).digest() for path, digest in leaves]
    for _ in range(len(nodes).bit_length()):  # level by level; the last of an odd number goes up as it is
        pairs = [b"".join(nodes[start : start + 2]) for start in range(0, len(nodes) - 1, 2)]
        nodes = [hashlib.sha256(b"\1" + pair).digest() for pair in pairs] + nodes[len(pairs) * 2 :]
    return (nodes[0] if nodes else hashlib.sha256().digest()).hex()


def predicate_of(run: dict[str, Any]) -> dict[str, Any]:
    """Return what an attestation must say of a run, all but the ledger; raises Invalid where it contradicts itself."""
    states = [unit["state"] for unit in run["units"]]
    answered = run["executed"] + run["cached"]
    failed = states.count("not-analysed")
    if answered != len(states) or failed > len(run["not_analysed"]) or (run["whole"] and run["planned"] != answered):
        raise Invalid("its numbers contradict each other")
    if not run["whole"] and not run["problems"]:
        raise Invalid("it is not whole, and does not say why")
    unreached = any(entry["reason"] == "not-reached" for entry in run["not_analysed"])
    if unreached and (run["whole"] or run.get("deadline") is None):
        raise Invalid("what was not reached was left by a deadline, and such a run is not whole")
    unreadable = sum(not entry["detector"] for entry in run["not_analysed"])
    return {
        "runId": run["run_id"],
        "version": run["version"],
        "started": run["started"],
        "whole": run["whole"],
        "problems": run["problems"],
        "configurationDigest": hashlib.sha256("".join(f"{item}\n" for item in run["command"]).encode()).hexdigest(),
        "snapshot": {"merkleRoot": snapshot_root(run["files"]), "files": len(run["files"])},
        "detectors": [
            {
                "name": item["name"],
                "version": item["version"],
                "codeDigest": raw_digest(item["code_digest"]).hex(),
                "configurationDigest": raw_digest(item["config_digest"]).hex(),
            }
            for item in run["detectors"]
        ],
        "units": {
            "planned": run["planned"],
            "executed": run["executed"],
            "cached": run["cached"],
            "notAnalysed": failed,
            "unreadable": unreadable,
        },
        "findings": {"count": len(run["findings"]), "digest": raw_digest(run["findings_digest"]).hex()},
    }


def problem_of_record(_data: bytes, run: dict[str, Any], predicate: dict[str, Any]) -> str:
    """Compute what the attestation says again from `run.json`."""
    told = predicate_of(run)
    unlike = [name for name, value in told.items() if predicate[name] != value]
    return f"the attestation says otherwise of: {', '.join(unlike)}" if unlike else ""


REASONS = {"timed-out": "timed-out", "breaker-open": "breaker-open"}
REASONS.update(dict.fromkeys(("unreadable", "vanished", "special-file", "symlink"), "unreadable"))  # others: failed
BLANK = ("unaccounted", "not-reached")  # planned, and without an answer
STATED = 0.9  # share of the batches that an interval, stated before, is made to hold


def calibration_of(run: dict[str, Any]) -> dict[str, Any]:
    """Return what the predictions of a run with a deadline were worth, counted again from its batches."""
    known = [batch for batch in run["batches"] if batch["high_s"] > 0]
    decided = [batch for batch in known if not batch["ended"] or batch["seconds"] > batch["high_s"]]
    inside, count = sum(batch["low_s"] <= batch["seconds"] <= batch["high_s"] for batch in decided), len(decided)
    low, high, z = 0.0, 1.0, 1.959963984540054  # the interval of a share after Wilson
    if count:
        share, square = inside / count, z * z
        middle = (share + square / (2 * count)) / (1 + square / count)
        spread = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
        low, high = max(middle - spread, 0.0), min(middle + spread, 1.0)
    return {
        "durations": count,
        "inside": inside,
        "undecided": len(known) - count,
        "stated": f"{STATED:.3f}",
        "share": f"{inside / count:.3f}" if count else "",
        "interval": [f"{low:.3f}", f"{high:.3f}"],
    }


def coverage_cells(run: dict[str, Any]) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Return state, reason and earlier run of each pair of file and detector; raises Invalid where one was left out."""
    reasons = {(entry["path"], entry["detector"]): entry["reason"] for entry in run["not_analysed"]}
    units = {(unit["path"], unit["detector"]): unit for unit in run["units"]}
    since = run.get("since") or {"commit": "", "narrowed": []}  # a run of an early release has none
    narrowed = {one["detector"]: frozenset(one["paths"]) for one in since["narrowed"]}
    cells: dict[tuple[str, str], tuple[str, str, str]] = {}
    for pair in ((file, detector) for file in run["files"] for detector in run["detectors"]):
        file, detector = pair
        place = (file["path"], detector["name"])
        unit, knows = units.pop(place, None), file["language"] in detector["languages"]
        applies = knows and place[0] in narrowed.get(place[1], (place[0],))
        unreached = reasons.get(place) == "not-reached"
        if unreached and unit is not None:
            raise Invalid(f"{place[0]} by {place[1]}: it has an answer, and is said not to be reached")
        if unit is None and knows and not applies:
            cells[place] = ("excluded", f"since {since['commit']}", "")
        elif unit is None and applies:
            cells[place] = ("not-reached" if unreached else "unaccounted", "", "")
        elif unit is None:
            cells[place] = ("not-applicable", file["language"], "")
        elif unit["state"] == "not-analysed":
            earlier = unit["run_id"] if unit["run_id"] != run["run_id"] else ""
            cells[place] = (REASONS.get(reasons.get(place, ""), "failed"), reasons.get(place, ""), earlier)
        else:
            cells[place] = ("from-cache", "", unit["run_id"]) if unit["state"] == "cached" else ("analysed", "", "")
        if run["whole"] and applies != (unit is not None):
            raise Invalid(f"{place[0]} by {place[1]}: the run calls itself whole, and what was planned was not done")
    answered = sum(state not in (*BLANK, "not-applicable", "excluded") for state, _, _ in cells.values())
    if run["whole"] and (units or answered != len(run["units"])):
        raise Invalid("the run calls itself whole, and has answers of what was not planned")
    return cells


def coverage_of(run: dict[str, Any]) -> dict[str, Any]:
    """Return the coverage statement that follows from a run: one state for each pair of file and detector."""
    cells = coverage_cells(run)
    known = sorted(set(cells.values()))
    detectors = sorted(run["detectors"], key=lambda detector: str(detector["name"]))
    columns, planned, blank = [], 0, 0
    for detector in detectors:
        states = [cells[file["path"], detector["name"]][0] for file in run["files"]]
        counts = {state: states.count(state) for state in sorted(set(states))}
        planned += len(states) - counts.get("not-applicable", 0) - counts.get("excluded", 0)
        blank += sum(counts.get(state, 0) for state in BLANK)
        narrower = {rule["id"]: rule["languages"] for rule in detector["rules"] if rule["languages"]}
        columns.append(
            {
                "detector": detector["name"],
                "version": detector["version"],
                "languages": detector["languages"],
                "rules": [rule["id"] for rule in detector["rules"]],
                "narrower": {k: v for k, v in sorted(narrower.items()) if set(v) < set(detector["languages"])},
                "counts": counts,
            }
        )
    silent = [(f["path"], f["detector"], f["finding"]["rule"]) for f in run["findings"] if f["finding"]["suppression"]]
    names = ("state", "reason", "run")
    deadline = {}
    if run.get("deadline") is not None:
        limit_ms, ended_ms = round(run["deadline"]["limit_s"] * 1000), round(run["seconds"] * 1000)
        told = {"limit_ms": limit_ms, "ended_ms": ended_ms, "reached": planned - blank}
        deadline = {"deadline": {**told, **calibration_of(run)}}
    return {
        "version": 1,
        "run_id": run["run_id"],
        "whole": run["whole"],
        "snapshot": {"merkle_root": snapshot_root(run["files"]), "files": len(run["files"])},
        "planned": planned,
        "accounted": planned - blank,
        "detectors": columns,
        "cells": [{name: said for name, said in zip(names, cell) if said} for cell in known],  # noqa: B905  # Python 3.9
        "files": [
            [file["path"], file["language"], [known.index(cells[file["path"], item["name"]]) for item in detectors]]
            for file in sorted(run["files"], key=lambda file: str(file["path"]))
        ],
        "suppressed": [[*key, count] for key, count in sorted(collections.Counter(silent).items())],
        "excluded": sorted(run["excluded"], key=lambda item: (item["path"], item["by"], item["files"])),
        "unreadable": sorted(
            (item for item in run["not_analysed"] if not item["detector"]),
            key=lambda item: (item["path"], item["reason"], item["detail"]),
        ),
        "canaries": run["canaries"],
        **deadline,
    }


def problem_of_coverage(data: bytes, run: dict[str, Any], _predicate: dict[str, Any]) -> str:
    """Compute `coverage.json` again from `run.json`: every file and detector has the state that the record shows."""
    canaries = run["canaries"]
    if canaries is not None:
        seed = bytes.fromhex(canaries["seed"])
        if len(seed) != 32 or hashlib.sha256(seed).hexdigest() != canaries["commitment"]:
            return "the seed of its canaries is not the one that was committed to"
    return "" if spelled(coverage_of(run)) + b"\n" == data else "it says otherwise than run.json"


MUST_NAME = ("run.json", "coverage.json")
SAYS: dict[str, Callable[[bytes, dict[str, Any], dict[str, Any]], str]] = {
    "run.json": problem_of_record,
    "coverage.json": problem_of_coverage,
}
"""A further file whose content must agree with the run's record or the attestation gets its function here."""


def check_contents(folder: Path, checks: list[Check], predicate: dict[str, Any]) -> list[Check]:
    """Hold what the files say, where they are what was signed, against the record and the attestation."""
    problems = {check.file: check.problem for check in checks}
    for name, says in SAYS.items():
        if problems.get("run.json", "missing") or problems.get(name, "missing"):
            continue  # it is told already, or there is nothing to hold it against
        try:
            run = decoded_json(read(folder, "run.json"), strict=False)
            problems[name] = says(read(folder, name), run, predicate)
        except Invalid as problem:
            problems[name] = str(problem)
        except (KeyError, TypeError, AttributeError, ValueError):
            problems[name] = "it is no run record" if name == "run.json" else "it cannot be held against run.json"
    return [Check(name, problem) for name, problem in problems.items()]


# -- The folder --------------------------------------------------------------------------------------------------------


def read(folder: Path, name: str) -> bytes:
    """Return a regular file's bytes; raises Invalid for what is none, is too large, or cannot be read."""
    most = MAX_BYTES.get(name)
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Invalid("it is no regular file")
            data = opened.read(-1 if most is None else most + 1)
    except FileNotFoundError:
        raise Invalid("it is missing") from None
    except (OSError, ValueError) as problem:
        raise Invalid(f"it cannot be read: {problem}") from None
    if most is not None and len(data) > most:
        raise Invalid(f"it is larger than {most} bytes")
    return data


PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END PUBLIC KEY-----")
DER = bytes.fromhex("302a300506032b6570032100")  # what stands before the 32 bytes of an Ed25519 key (RFC 8410)


def key_of(pem: bytes) -> bytes:
    """Return the 32 bytes of an Ed25519 public key in PEM; raises Invalid."""
    found = PEM.search(pem)
    data = decoded_base64(b"".join(found[1].split()).decode()) if found else b""
    if len(data) != len(DER) + 32 or not data.startswith(DER):
        raise Invalid("it is no Ed25519 public key in PEM")
    return data[len(DER) :]


def pem_of(key: bytes) -> bytes:
    """Return the one spelling of a public key's file."""
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(DER + key) + b"\n-----END PUBLIC KEY-----\n"


def check_key(folder: Path, trusted: bytes) -> tuple[Check, bytes]:
    """Check the folder's copy of the key against the trusted one; return it, too, or nothing where it is none."""
    try:
        pem = read(folder, PUBLIC_KEY)
        key = key_of(pem)
    except Invalid as problem:
        return Check(PUBLIC_KEY, str(problem)), b""
    if pem_of(key) != pem:
        return Check(PUBLIC_KEY, "it was edited"), b""
    return Check(PUBLIC_KEY, "" if trusted in (b"", key) else "it is not the key that you trust"), key


def check_file(folder: Path, subject: dict[str, Any]) -> Check:
    """Check that a file is the one that was signed."""
    name = subject["name"]
    try:
        data = read(folder, name)
    except Invalid as problem:
        return Check(name, str(problem))
    if hashlib.sha256(data).hexdigest() != subject["digest"]["sha256"]:
        return Check(name, "its content is not what was signed")
    return Check(name, "")


def verify(folder: Path, trusted: bytes = b"") -> Verdict:
    """
    Check everything in a folder.

    Args:
        folder: What `scan --evidence` made.
        trusted: The 32 bytes of the key that the caller brought; nothing where he brought none.
    """
    key_check, own = check_key(folder, trusted)
    key, data = trusted or own, b""
    try:
        data = read(folder, ATTESTATION)
        if not key:
            raise Invalid("there is no key to check its signature with")
        statement = opened_envelope(data, key)
    except Invalid as problem:
        if not key_check.problem and named_key(data) not in ("", hashlib.sha256(own).hexdigest()):
            # Which of the two was changed cannot be told, so both are named.
            key_check = Check(PUBLIC_KEY, "it is not the key that the attestation names")
        return Verdict([key_check, Check(ATTESTATION, str(problem))], None, key, bool(trusted), 0)
    predicate = statement["predicate"]
    ledger, records = check_ledger(folder, predicate, hashlib.sha256(data).hexdigest())
    files = [check_file(folder, subject) for subject in statement["subject"]]
    named = {check.file for check in files}
    files += [Check(name, "the attestation does not name it") for name in MUST_NAME if name not in named]
    checks = [key_check, Check(ATTESTATION, ""), *ledger, *check_contents(folder, files, predicate)]
    named = {check.file for check in checks}
    more = [
        Check(name, "it is not in the attestation")
        for name in sorted({entry.name for entry in folder.iterdir()} - named)
    ]
    return Verdict(checks + more, predicate, key, bool(trusted), records)


# -- The verdict in words ----------------------------------------------------------------------------------------------


def in_words(verdict: Verdict) -> list[str]:
    """Return what was checked and what holds, line by line."""
    lines = [f"FAIL {file}: {problem}" if problem else f"ok   {file}" for file, problem in verdict.checks]
    if not verdict.ok or verdict.predicate is None:
        told = "Do not rely on this folder: what is marked FAIL is missing, changed, or not what was signed."
        return [*lines, "", told, "evidence does NOT verify"]
    told, trust = "It is the key that you gave.", "signed by the key that you gave"
    if not verdict.trusted:
        told = "WHOSE KEY THAT IS WAS NOT CHECKED: it came with the folder. Give your own copy: --public-key FILE"
        trust = "self-consistent; give --public-key to check whose signature it is"
    return [
        *lines,
        "",
        f"Signed by the key {hashlib.sha256(verdict.key).hexdigest()}. {told}",
        f"The folder holds what was signed, nothing changed, nothing missing, nothing more: {len(lines)} files.",
        *run_in_words(verdict.predicate),
        *ledger_in_words(verdict.predicate["ledger"], verdict.records),
        f"evidence verified: {trust}",
    ]


def run_in_words(told: dict[str, Any]) -> list[str]:
    """Return what the attestation says of the run; each number was computed again from run.json."""
    units, snapshot = told["units"], told["snapshot"]
    answered = units["executed"] + units["cached"]
    whole = "The run is WHOLE: every pair that was planned has an answer."
    if not told["whole"]:
        whole = f"The run is NOT WHOLE: {'; '.join(told['problems'])}"
    return [
        f"Run {told['runId']}, begun {told['started']}, by detector-pool {told['version']}.",
        f"{len(told['detectors'])} detectors, {snapshot['files']} source files, Merkle root {snapshot['merkleRoot']}.",
        f"Pairs of file and detector: {units['planned']} planned, {answered} with an answer ({units['cached']} of them "
        f"kept from earlier runs); the answer to {units['notAnalysed']} is that they could not be analysed.",
        f"Entries of the tree that could not be read at all: {units['unreadable']}.",
        whole,
        f"Findings: {told['findings']['count']}; report.html and findings.sarif show them.",
    ]


def ledger_in_words(ledger: dict[str, Any], records: int) -> list[str]:
    """Return what stands behind the attestation."""
    if ledger["recorded"] == "no":
        return [f"No ledger record stands behind it: {ledger['reason']}", "A run that was thrown away leaves no trace."]
    if records < 1:
        return [f"That the ledger {ledger['origin']} has it was not shown."]
    return [
        f"The ledger {ledger['origin']} has this attestation among its first {records} records.",
        "Whether the ledger was rolled back or written anew since, only the ledger itself can show.",
        "Whether it had the commitment to the canaries' seed before the run stands in an encrypted record of it, which "
        "this file cannot read: detector-pool evidence verify --ledger --passphrase-file shows it.",
    ]


def statement_in_words(file: Path, key: bytes) -> list[str]:
    """Return what somebody signed about evidence, line by line; raises Invalid where that key did not sign it."""
    statement = signed_by(read(file.parent, file.name), key)
    if not isinstance(statement, dict) or not fits(
        statement.get("subject"), [{"name": str, "digest": {"sha256": str}}]
    ):
        raise Invalid("it holds no statement about evidence")
    about = [f"About run {item['name']}, attestation {item['digest']['sha256']}" for item in statement["subject"]]
    told = json.dumps(statement.get("predicate"), ensure_ascii=False, indent=2).split("\n")
    return [
        f"Signed by the key that you gave, {hashlib.sha256(key).hexdigest()}: {statement.get('predicateType')}",
        *about,
        *told,
    ]


def plain(text: str) -> str:
    """Escape what is not printable: a file's name must not drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def main(words: list[str]) -> int:
    """Verify, print what was found, return the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Verify an evidence folder, offline.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parent, metavar="FOLDER")
    parser.add_argument("--public-key", type=Path, metavar="FILE", help="your own copy of the signer's key (PEM)")
    given = parser.parse_args(words)
    try:
        trusted = key_of(given.public_key.read_bytes()[:MAX_KEY_BYTES]) if given.public_key is not None else b""
    except (OSError, Invalid) as problem:
        parser.error(plain(f"the key {given.public_key} cannot be used: {problem}"))
    if given.folder.is_dir():
        verdict = verify(given.folder, trusted)
        lines, ok = in_words(verdict), verdict.ok
    elif given.folder.exists() and trusted:
        try:
            lines, ok = statement_in_words(given.folder, trusted), True
        except Invalid as problem:
            lines, ok = [f"FAIL {given.folder}: {problem}"], False
    else:
        parser.error(plain(f"{given.folder} is no folder, nor a statement that comes with --public-key"))
    for line in lines:
        sys.stdout.write(plain(line).encode("ascii", "backslashreplace").decode() + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
