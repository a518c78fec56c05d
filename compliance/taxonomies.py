"""
Which weakness (CWE) and which coding rule (MISRA C, SEI CERT) a rule speaks of: data, each with its source.

`taxonomies.json` holds it. A rule without a mapping has none that could be supported; a wrong one would be worse. Each
mapping is *relevant* (SARIF §3.53.3) and says no more: not that the rule finds all of the weakness, nor nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["CWE", "Mapped", "Taxonomy", "mappings", "references", "taxa_of", "taxonomies"]

DATA: Final = Path(__file__).with_name("taxonomies.json")
CWE: Final = "CWE"
KIND: Final = "relevant"


class Taxonomy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A classification that others publish."""

    name: str
    organization: str
    information: str
    """Address of what it is."""
    help: str
    """Address of one entry, with `{id}` in it; empty where there is none in public."""


class Mapped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mappings that one source supports."""

    taxonomy: str
    source: str
    rules: dict[str, tuple[str, ...]]
    """By rule id, the ids of entries."""


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    taxonomies: tuple[Taxonomy, ...]
    mappings: tuple[Mapped, ...]


@functools.cache
def _data() -> _Data:
    data = msgspec.json.decode(DATA.read_bytes(), type=_Data)
    names = {one.name for one in data.taxonomies}
    assert all(one.taxonomy in names and one.source and one.rules for one in data.mappings), "each mapping has a source"
    return data


def taxonomies() -> tuple[Taxonomy, ...]:
    """Return all that rules are mapped to."""
    return _data().taxonomies


def mappings() -> tuple[Mapped, ...]:
    """Return all mappings, by source."""
    return _data().mappings


def taxa_of(rule: str) -> tuple[tuple[str, str], ...]:
    """Return (taxonomy, id of an entry) of a rule, sorted; empty for one without a mapping."""
    found = {(one.taxonomy, id_) for one in _data().mappings for id_ in one.rules.get(rule, ())}
    assert all(id_ for _, id_ in found), "an entry has an id"
    return tuple(sorted(found))


def references(rules: Sequence[str]) -> tuple[list[dict[str, Any]], Mapping[str, list[dict[str, Any]]]]:
    """
    Return what a SARIF run says of its rules' taxonomies.

    Args:
        rules: Ids.

    Returns:
        The run's `taxonomies` (§3.14.8), and by rule its `relationships` (§3.49.15); both empty where none is mapped.
    """
    found = {rule: taxa_of(rule) for rule in rules}
    components: list[dict[str, Any]] = []
    places: dict[tuple[str, str], tuple[int, int]] = {}
    for taxonomy in taxonomies():
        ids = sorted({id_ for taxa in found.values() for name, id_ in taxa if name == taxonomy.name})
        if not ids:
            continue
        places |= {(taxonomy.name, id_): (len(components), index) for index, id_ in enumerate(ids)}
        taxa = [{"id": id_} | ({"helpUri": taxonomy.help.format(id=id_)} if taxonomy.help else {}) for id_ in ids]
        components.append(
            {
                "name": taxonomy.name, "organization": taxonomy.organization, "informationUri": taxonomy.information,
                "isComprehensive": False, "taxa": taxa,
            }
        )  # fmt: skip
    assert all(taxon in places for taxa in found.values() for taxon in taxa), "each entry has its taxonomy in the run"
    return components, {rule: [_relationship(taxon, places[taxon]) for taxon in taxa] for rule, taxa in found.items()}


def _relationship(taxon: tuple[str, str], place: tuple[int, int]) -> dict[str, Any]:
    (name, id_), (component, index) = taxon, place
    assert component >= 0, "it has a place in the run"
    return {
        "target": {"id": id_, "index": index, "toolComponent": {"name": name, "index": component}}, "kinds": [KIND],
    }  # fmt: skip
