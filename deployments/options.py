"""Options that several commands take, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Checkpoint", "Json", "OwnKeys", "PassphraseFile", "PublicKey"]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
PassphraseFile = Annotated[Path | None, typer.Option(help="File with the passphrase of key and ledger.")]
OwnKeys = Annotated[Path, typer.Option("--keys", metavar="DIR", help="Folder of your signing key.", show_default=False)]
PublicKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The key that you trust, kept elsewhere: PEM, or a ledger's verifier key."),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A checkpoint of the ledger, kept elsewhere; shows what was cut or rolled back."),
]
