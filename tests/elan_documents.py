"""What every ELAN document must be that we write, in Python or on the page for reviews."""

import pathlib
import xml.etree.ElementTree as ET

import xmlschema

# The published schema, whose licence does not say that it may lie here; `make test` fetches it.
SCHEMA = pathlib.Path(__file__).parents[1] / "build" / "EAFv3.0.xsd"


def check_by_schema(path):
  """Raises if a document does not follow the schema, which must be there."""
  xmlschema.XMLSchema(str(SCHEMA)).validate(str(path))


def check_order(path, video):
  """Rules of the schema that other programs rely on, and that tiers of ELAN do not overlap.

  Returns the names of the tiers.
  """
  root = ET.parse(path).getroot()
  order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "LANGUAGE", "CONSTRAINT"]
  order.append("CONTROLLED_VOCABULARY")
  assert list(dict.fromkeys(child.tag for child in root)) == order
  medium = root.find("HEADER/MEDIA_DESCRIPTOR")
  assert medium.get("MEDIA_URL").startswith("file:///")
  assert medium.get("MIME_TYPE").startswith("video/")
  assert medium.get("RELATIVE_MEDIA_URL").endswith(f"/{video}")
  slots = {s.get("TIME_SLOT_ID"): int(s.get("TIME_VALUE")) for s in root.iter("TIME_SLOT")}
  assert list(slots.values()) == sorted(slots.values())
  names = [element.get("ANNOTATION_ID") for element in root.iter() if element.get("ANNOTATION_ID")]
  assert len(set(names)) == len(names)
  types = {t.get("LINGUISTIC_TYPE_ID"): t for t in root.iter("LINGUISTIC_TYPE")}
  vocabularies = {
    cv.get("CV_ID"): [value.text for value in cv.iter("CVE_VALUE")]
    for cv in root.iter("CONTROLLED_VOCABULARY")
  }
  tiers = {tier.get("TIER_ID"): tier for tier in root.iter("TIER")}
  assert len(tiers) == len(root.findall("TIER"))
  for tier in tiers.values():
    kind = types[tier.get("LINGUISTIC_TYPE_REF")]
    assert tier.get("PARENT_REF", next(iter(tiers))) in tiers
    end = 0
    for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
      onset, offset = (slots[annotation.get(f"TIME_SLOT_REF{number}")] for number in (1, 2))
      assert end <= onset < offset
      end = offset
      value = annotation.findtext("ANNOTATION_VALUE")
      assert value in vocabularies[kind.get("CONTROLLED_VOCABULARY_REF")]
  return list(tiers)
