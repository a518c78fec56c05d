"""Ways to tamper with an evidence folder, from a seed; and whether our two verifiers say the same of what comes out."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compliance import verify_alone
from compliance.dsse import pae
from compliance.evidence import verify
from compliance.signing import SigningKey

ATTESTATION = "attestation.intoto.jsonl"


def disagreement(folder: Path, public_key: Path | None = None) -> str | None:
    """Return where `verify.py` says otherwise than `evidence verify`: of a file, of the whole, of what it looked at."""
    ours = verify(folder, public_key)
    trusted = b"" if public_key is None else verify_alone.key_of(public_key.read_bytes())
    alone = verify_alone.verify(folder, trusted)
    held = {check.file: check.ok for check in ours.checked}
    said = {check.file: not check.problem for check in alone.checks}
    if (ours.ok, held) == (alone.ok, said):
        return None
    unlike = sorted(name for name in held.keys() | said.keys() if held.get(name) != said.get(name))
    return f"{unlike}: evidence verify {[c for c in ours.checked if c.file in unlike]}, verify.py {alone.checks}"


class Tampering:
    """
    Evidence of three runs, two of them of one signer and ledger, and what can be done to the first.

    Args:
        home: Folders `one`, `two`, `foreign` as `tests.compliance.test_run_trail` makes them, and `keys`.
        seed: Of the choices.
    """

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.folder = home, home / "tampered"
        self.public_key = home / "keys" / "public-key.pem"
        self._choose = random.Random(seed)
        self._key = SigningKey.load_or_create(home / "keys")
        self._stranger = SigningKey.load_or_create(home / "stranger")

    def each(self, count: int) -> Iterator[tuple[str, bool]]:
        """Yield what was done to `folder`, anew each time, and whether it must be noticed even without a key."""
        acts: tuple[tuple[Callable[[], object], bool], ...] = (
            (self._flipped, True), (self._flipped, True), (self._cut, True), (self._lengthened, True),
            (self._removed, True), (self._added, True), (self._renamed, True), (self._other_kind, True),
            (self._two_exchanged, False), (self._of_another_run, False), (self._respelled_envelope, True),
            (self._respelled_proof, True), (self._edited_proof, True), (self._edited_statement, True),
            (self._edited_record, True), (self._signed_by_another, False), (self._edited_key, True),
            (self._edited_coverage, True),
        )  # fmt: skip
        for number in range(count):
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(self.home / "one", self.folder)
            act, noticed = acts[number % len(acts)]
            yield f"{number} {act.__name__.strip('_')}: {act()}", noticed

    def _file(self) -> Path:
        return self._choose.choice(sorted(self.folder.iterdir()))

    def _flipped(self) -> object:
        file = self._file()
        data = bytearray(file.read_bytes())
        place = self._choose.randrange(len(data))
        data[place] ^= 1 << self._choose.randrange(8)
        file.write_bytes(data)
        return file.name, place

    def _cut(self) -> object:
        file = self._file()
        data = file.read_bytes()
        file.write_bytes(data[: self._choose.randrange(len(data))])
        return file.name

    def _lengthened(self) -> object:
        file = self._file()
        with file.open("ab") as opened:
            opened.write(self._choose.choice((b"\n", b" ", b"\0", b"{}\n")))
        return file.name

    def _removed(self) -> object:
        file = self._file()
        file.unlink()
        return file.name

    def _added(self) -> object:
        name = self._choose.choice(("more", ".hidden", "run.json.bak", "ledger-proof.json2", "é\x1b[31m"))
        (self.folder / name).write_bytes(b"x")
        return name

    def _renamed(self) -> object:
        file = self._file()
        file.rename(self.folder / "renamed")
        return file.name

    def _other_kind(self) -> object:
        file = self._file()
        file.rename(self.home / "aside")
        file.mkdir() if self._choose.random() < 0.5 else file.symlink_to(self.home / "aside")
        return file.name

    def _two_exchanged(self) -> object:
        one, other = self._file(), self._file()
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return one.name, other.name

    def _of_another_run(self) -> object:
        source = self.home / self._choose.choice(("two", "foreign"))
        names = self._choose.sample(sorted(file.name for file in source.iterdir()), self._choose.randint(1, 4))
        for name in names:
            shutil.copy(source / name, self.folder / name)
        return source.name, names

    def _respelled_envelope(self) -> object:
        file = self.folder / ATTESTATION
        text = file.read_text()
        envelope = json.loads(text)
        body = envelope["payload"]
        ways = {
            "spaces": json.dumps(envelope) + "\n",
            "order": json.dumps(dict(reversed(envelope.items())), separators=(",", ":")) + "\n",
            "no end": text[:-1],
            "unpadded": text.replace(body, body.rstrip("=") + "A" * (3 - len(body.rstrip("=")) % 4)),
            "newline in base64": text.replace(body, body[:8] + "\\n" + body[8:]),
            "url alphabet": text.replace(body, body.replace("+", "-").replace("/", "_") + "-"),
            "twice": text.replace('"signatures":[', '"signatures":[' + json.dumps(envelope["signatures"][0]) + ","),
            "no signature": text.replace(text[text.index('"signatures":') :], '"signatures":[]}\n'),
            "more": text.replace('{"payload"', '{"more":1,"payload"'),
            "key id": text.replace('"keyid":"', '"keyid":"0', 1),
            "other key id": text.replace(self._key.public.id, self._stranger.public.id),
            "type": text.replace("in-toto", "in-tot0"),
            "escaped": text.replace('"payload"', '"\\u0070ayload"'),
            "list": "[]\n",
            "deep": "[" * 100_000,
        }
        name = self._choose.choice(sorted(ways))
        file.write_text(ways[name] if ways[name] != text else "changed")
        return name

    def _respelled_proof(self) -> object:
        name = self._choose.choice(("ledger-proof.json", "ledger-checkpoint"))
        data = (self.folder / name).read_bytes()
        ways = [data.replace(b"\n", b"\r\n"), data + data, data.lstrip(b"{d"), data.replace(b'":', b'": ', 1) + b" "]
        (self.folder / name).write_bytes(self._choose.choice(ways))
        return name

    def _edited_proof(self) -> object:
        file = self.folder / "ledger-proof.json"
        proof = json.loads(file.read_bytes())
        other = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
        edits: dict[str, Callable[[], object]] = {
            "index": lambda: proof.update(index=proof["index"] + self._choose.choice((-1, 1, 1 << 40))),
            "shorter": lambda: proof.update(path=proof["path"][:-1]),
            "longer": lambda: proof.update(path=[*proof["path"], other]),
            "much longer": lambda: proof.update(path=[other] * 70),
            "sibling": lambda: proof.update(path=[other, *proof["path"][1:]]),
            "origin": lambda: proof.update(origin="detector-pool/ledger/0"),
            "format": lambda: proof.update(format=2),
            "no number": lambda: proof.update(index=1.0),
            "leaf": lambda: proof.update(leaf=other),
            "null": lambda: proof.update(path=None),
        }
        name = self._choose.choice(sorted(edits))
        edits[name]()
        file.write_bytes(json.dumps(proof, separators=(",", ":")).encode() + b"\n")
        return name

    def _edited_statement(self) -> object:
        """Sign another statement with the honest key."""
        statement = self._statement()
        predicate, subjects = statement["predicate"], statement["subject"]
        edits: dict[str, Callable[[], object]] = {
            "files": lambda: predicate["snapshot"].update(files=9),
            "root": lambda: predicate["snapshot"].update(merkleRoot="0" * 64),
            "planned": lambda: predicate["units"].update(planned=9),
            "unreadable": lambda: predicate["units"].update(unreadable=0),
            "no integer": lambda: predicate["units"].update(planned="4"),
            "whole": lambda: predicate.update(whole=False),
            "truth": lambda: predicate.update(whole=1),
            "run": lambda: predicate.update(runId="1" * 32),
            "problems": lambda: predicate.update(problems=['é\u2028\x7f\x1f"\\']),
            "detectors": predicate["detectors"].pop,
            "digest": lambda: predicate["findings"].update(digest="1" * 64),
            "key of the ledger": lambda: predicate["ledger"].update(verifierKey="a+00000000+AAAA"),
            "origin": lambda: predicate["ledger"].update(origin="detector-pool/ledger/1"),
            "start": lambda: predicate["ledger"].update(startIndex=99),
            "no ledger": lambda: predicate.update(ledger={"recorded": "no", "reason": "x"}),
            "tag": lambda: predicate["ledger"].update(recorded="maybe"),
            "fewer": subjects.pop,
            "no record": lambda: subjects.remove(next(s for s in subjects if s["name"] == "run.json")),
            "none": subjects.clear,
            "twice": lambda: subjects.append(subjects[-1]),
            "order": subjects.reverse,
            "outside": lambda: subjects[-1].update(name="../x"),
            "apart": lambda: subjects[0].update(name=ATTESTATION),
            "sha512": lambda: subjects[0].update(digest={"sha512": "0" * 128}),
            "upper": lambda: subjects[0]["digest"].update(sha256=subjects[0]["digest"]["sha256"].upper() + "0"),
            "kind": lambda: statement.update(predicateType="urn:x"),
            "more": lambda: predicate.update(more=1),
            "less": lambda: predicate.pop("started"),
        }
        name = self._choose.choice(sorted(edits))
        edits[name]()
        self._sign(statement, self._key)
        return name

    def _edited_record(self) -> object:
        """Change the record, and sign its new digest with the honest key: the statement's words no longer fit it."""
        run = json.loads((self.folder / "run.json").read_bytes())
        edits: dict[str, Callable[[], object]] = {
            "unit": run["units"].pop,
            "file": run["files"].pop,
            "same file": lambda: run["files"].append(run["files"][0]),
            "path": lambda: run["files"][0].update(path="other.c"),
            "digest": lambda: run["files"][0].update(digest="md5:0"),
            "finding": run["findings"].pop,
            "options": lambda: run["command"].append("x"),
            "version": lambda: run["detectors"][0].update(version="9"),
            "state": lambda: run["units"][0].update(state="not-analysed"),
            "all failed": lambda: [unit.update(state="not-analysed") for unit in run["units"]],
            "planned": lambda: run.update(planned=99),
            "not whole": lambda: run.update(whole=False),
            "unreadable": run["not_analysed"].pop,
            "less": lambda: run.pop("units"),
        }
        name = self._choose.choice(sorted(edits))
        edits[name]()
        data = json.dumps(run, separators=(",", ":"), ensure_ascii=False).encode()
        self._sign_anew("run.json", self._choose.choice((data, data, data, b"[]", b"\xff", b"[" * 100_000)))
        return name

    def _edited_coverage(self) -> object:
        """Change the coverage statement, and sign its new digest with the honest key: the record contradicts it."""
        file = self.folder / "coverage.json"
        if not file.exists():
            return self._edited_record()
        told = json.loads(file.read_bytes())
        edits: dict[str, Callable[[], object]] = {
            "row": told["files"].pop,
            "two rows": lambda: told["files"].append(told["files"][0]),
            "cell": lambda: told["files"][0].__setitem__(2, [n + 1 for n in told["files"][0][2]]),
            "state": lambda: told["cells"][0].update(state="failed"),
            "counts": lambda: told["detectors"][0]["counts"].update(analysed=99),
            "planned": lambda: told.update(planned=99),
            "accounted": lambda: told.update(accounted=0),
            "excluded": lambda: told.update(excluded=[]),
            "root": lambda: told["snapshot"].update(merkle_root="0" * 64),
            "more": lambda: told.update(more=1),
        }
        name = self._choose.choice(sorted(edits))
        edits[name]()
        data = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        self._sign_anew("coverage.json", self._choose.choice((data, data, data, b"[]", b"\xff", data + b" ")))
        return name

    def _sign_anew(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)
        statement = self._statement()
        for subject in statement["subject"]:
            digest = hashlib.sha256((self.folder / subject["name"]).read_bytes()).hexdigest()
            subject["digest"]["sha256"] = digest
        self._sign(statement, self._key)

    def _signed_by_another(self) -> object:
        """Forge: the key is exchanged, too, or only the signature is."""
        self._sign(self._statement(), self._stranger)
        exchanged = self._choose.random() < 0.7
        if exchanged:
            (self.folder / "public-key.pem").write_bytes(self._stranger.public.pem())
        for name in ("ledger-checkpoint", "ledger-proof.json"):
            if self._choose.random() < 0.5:
                shutil.copy(self.home / "foreign" / name, self.folder / name)
        return exchanged

    def _edited_key(self) -> object:
        pem = self._key.public.pem()
        body = pem.split(b"\n")[1]
        ways = (
            self._stranger.public.pem(), pem.replace(b"\n", b"\r\n"), b"x\n" + pem, pem[:-1], pem.replace(b"PUBLIC", b"PRIVATE"),
            pem.replace(body, body[:-1]), pem.replace(b"MCow", b"MCoW"), body, b"", pem.replace(body, b"A" * 60),
        )  # fmt: skip
        way = self._choose.randrange(len(ways))
        (self.folder / "public-key.pem").write_bytes(ways[way])
        return way

    def _statement(self) -> dict[str, Any]:
        envelope = json.loads((self.folder / ATTESTATION).read_bytes())
        found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
        return found

    def _sign(self, statement: dict[str, Any], key: SigningKey) -> None:
        payload = json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode()
        signature = {"keyid": key.public.id, "sig": base64.b64encode(key.sign(pae(payload))).decode()}
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [signature],
        }
        (self.folder / ATTESTATION).write_bytes(json.dumps(envelope, separators=(",", ":")).encode() + b"\n")


def disagreements(tampering: Tampering, count: int) -> Iterator[str | None]:
    """Yield None for each tampered folder of which both verifiers say the same, with a trusted key and without one."""
    for told, must_be_noticed in tampering.each(count):
        unlike = disagreement(tampering.folder) or disagreement(tampering.folder, tampering.public_key)
        if unlike is None and must_be_noticed and verify_alone.verify(tampering.folder).ok:
            unlike = "nobody noticed"
        yield None if unlike is None else f"{told}: {unlike}"
