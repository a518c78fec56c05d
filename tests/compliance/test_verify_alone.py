"""`verify.py`: the same verdict as `evidence verify`, where nothing of this project is, and with a digest that is known."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from compliance import attestation, verify_alone
from compliance.attestation import NoLedger, Subject
from compliance.evidence import VERIFIER
from compliance.run_trail import RunTrail, recorded_scan
from compliance.signing import SigningKey
from detectors.scan import ScanOptions
from tests.compliance.conftest import make_run
from tests.compliance.rfc_8032 import RFC_8032
from tests.compliance.test_run_trail import made  # noqa: F401  # a fixture
from tests.faults.evidence_tampering import Tampering, disagreement, disagreements

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(verify_alone.__file__)
P, L = verify_alone.P, verify_alone.L


def theirs(key: bytes, signature: bytes, message: bytes) -> bool:
    """Ask `cryptography`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def both(key: bytes, signature: bytes, message: bytes) -> bool:
    answer = verify_alone.is_signed(key, signature, message)
    assert answer == theirs(key, signature, message), (key.hex(), signature.hex(), message.hex())
    return answer


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_the_vectors_of_the_rfc(secret: str, public: str, message: str, signature: str) -> None:
    """When this fails, it is not Ed25519."""
    key, text, signed = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)

    assert Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).sign(text) == signed
    assert verify_alone.is_signed(key, signed, text)
    assert not verify_alone.is_signed(key, signed, text + b"\0")
    assert not verify_alone.is_signed(key, signed[:32] + bytes(32), text)
    assert not verify_alone.is_signed(key, signed[:-1], text)


def test_small_order_and_non_canonical_encodings_are_taken_as_cryptography_takes_them() -> None:
    """When this fails, a signature can be made of which the two verifiers say different things."""
    ys = [0, 1, 2, P - 2, P - 1, P, P + 1, P + 2, P + 18, (1 << 255) - 1]
    order8 = int("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", 16)
    ys.append(int.from_bytes(order8.to_bytes(32, "big"), "little") & ((1 << 255) - 1))
    encodings = [(y | sign << 255).to_bytes(32, "little") for y in ys for sign in (0, 1)]
    answers = [both(key, r + bytes(32), bytes([m])) for key in encodings for r in encodings[:12] for m in range(3)]

    assert any(answers)
    assert not all(answers)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80), st.integers(0, 9), st.integers(0, 511))
def test_signatures_hold_and_fail_as_cryptography_says(secret: bytes, message: bytes, way: int, bit: int) -> None:
    """Sound ones, flipped bits, a number that is L too large, a negative, another key."""
    key = Ed25519PrivateKey.from_private_bytes(secret)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    number = int.from_bytes(signature[32:], "little")
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    cases = {
        0: (public, signature, message),
        1: (public, bytes(flipped), message),
        2: (public, signature[:32] + (number + L).to_bytes(32, "little"), message),
        3: (public, signature[:32] + (L - number).to_bytes(32, "little"), message),
        4: (bytes([public[0] ^ 1]) + public[1:], signature, message),
        5: (public[:31] + bytes([public[31] ^ 128]), signature, message),
        6: (public, signature, message + b"\0"),
        7: (secret, signature, message),
        8: (public, secret + signature[32:], message),
        9: (public, signature[:32] + secret, message),
    }

    assert both(*cases[way]) == (way == 0)


@given(st.lists(st.text(), max_size=3), st.text(max_size=9))
def test_any_text_is_spelled_alike(problems: list[str], reason: str) -> None:
    """When this fails, honest evidence with odd names does not verify, or a respelled one does."""
    import msgspec

    run = msgspec.structs.replace(make_run(), problems=tuple(problems))
    key = SigningKey.from_raw(b"\1" * 32)
    predicate = attestation.predicate_of(run, NoLedger(reason))
    sealed = attestation.seal([Subject("é", {"sha256": "0" * 64}, "text/x")], predicate, key)
    told = verify_alone.opened_envelope(sealed, key.public.raw)

    assert (told["predicate"]["problems"], told["predicate"]["ledger"]["reason"]) == (problems, reason)
    assert verify_alone.predicate_of(json.loads(msgspec.json.encode(run)))["problems"] == problems


def test_both_verifiers_agree_on_tampered_folders(made: Path, tmp_path: Path) -> None:  # noqa: F811  # the fixture
    """A seeded sample; a thousand in `make prove`."""
    shutil.copytree(made, tmp_path / "home")
    tampering = Tampering(tmp_path / "home", 8)

    assert [told for told in disagreements(tampering, 136) if told is not None] == []
    assert disagreement(made / "one") is None
    assert disagreement(made / "two", made / "keys" / "public-key.pem") is None


def test_its_digest_is_the_published_one(made: Path) -> None:  # noqa: F811  # the fixture
    """When this fails, the file was changed and docs/verifier.sha256 was not, or the folder holds another one."""
    published = (DOCS / "verifier.sha256").read_text()

    assert published == f"{hashlib.sha256(SOURCE.read_bytes()).hexdigest()}  verify.py\n"
    assert (made / "one" / VERIFIER).read_bytes() == SOURCE.read_bytes()


def test_it_stands_on_the_standard_library_alone() -> None:
    """When this fails, an auditor has to install something that he must trust as well."""
    tree = ast.parse(SOURCE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == set()
    assert SOURCE.read_text().count("\n") < 800


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with its standard library and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def test_it_runs_alone_and_says_in_words_what_holds(bare: Path, tmp_path: Path, small_tree: Path) -> None:
    """As an auditor runs it: on evidence of a real scan, with his key, without one, with a wrong one, after a change."""
    key, stranger = SigningKey.load_or_create(tmp_path / "keys"), SigningKey.load_or_create(tmp_path / "stranger")
    folder = tmp_path / "evidence"
    from compliance.evidence import collect

    trail = RunTrail()
    options = ScanOptions((small_tree,), detectors=("power-of-ten-c",))
    recorded_scan(options, trail, lambda run: collect(run, folder, key, trail))

    def run(*words: str | Path, flags: tuple[str, ...] = ("-I",)) -> tuple[int, str]:
        command = [str(bare), *flags, str(folder / VERIFIER), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    alone, anchored = run(), run(folder, "--public-key", tmp_path / "keys" / "public-key.pem")
    wrong = run("--public-key", tmp_path / "stranger" / "public-key.pem")
    assert (alone[0], anchored[0], wrong[0]) == (0, 0, 1)
    assert f"Signed by the key {key.public.id}. WHOSE KEY THAT IS WAS NOT CHECKED" in alone[1]
    assert "It is the key that you gave" in anchored[1]
    assert "The run is WHOLE" in anchored[1]
    assert "No ledger record stands behind it" in anchored[1]
    assert "FAIL public-key.pem: it is not the key that you trust" in wrong[1]
    assert stranger.public.id != key.public.id
    (folder / "json.py").write_text("raise SystemExit('hijacked')")
    hijack, shadowed = run(), run(flags=())
    assert (hijack[0], shadowed[0]) == (1, 2)
    assert "FAIL json.py: it is not in the attestation" in hijack[1]
    assert "hijacked" not in shadowed[1]
    assert [run(tmp_path / "missing")[0], run("--public-key", tmp_path / "no")[0], run("--more")[0]] == [2, 2, 2]
    assert run("--public-key", folder / "run.json")[0] == 2


def test_a_name_cannot_drive_the_terminal(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811  # the fixture
    """A file that was slipped in must not paint its own verdict."""
    shutil.copytree(made / "one", tmp_path / "one")
    (tmp_path / "one" / "\x1b[2Jevidence verified\n").write_text("x")

    assert verify_alone.main([str(tmp_path / "one")]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count("\n") == len(shown.splitlines())
    assert "FAIL \\x1b[2Jevidence verified\\n" in shown
