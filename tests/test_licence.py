"""What a licence allows: unknown means no."""

import pytest

from headstart.licence import refused


@pytest.mark.parametrize("licence", ["Apache-2.0", "mit", "BSD-3-Clause", "CC-BY-4.0", " MIT "])
def test_known_permissive_licences_are_commercial(licence):
    assert refused(licence, "commercial") is None
    assert refused(licence, "any") is None


@pytest.mark.parametrize("licence", ["unknown", "other", "", "NOASSERTION"])
def test_what_is_not_known_is_not_allowed(licence):
    assert "unknown means no" in refused(licence, "commercial")
    assert "unknown means no" in refused(licence, "MIT, Apache-2.0")
    assert refused(licence, "any") is None


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "gemma", "llama3.1", "CreativeML-OpenRAIL-M", "apache"])
def test_terms_that_may_forbid_are_named(licence):
    assert licence in refused(licence, "commercial")


def test_a_list_is_taken_by_its_letter():
    assert refused("MIT", "mit, apache-2.0") is None
    assert refused("gemma", "Gemma") is None
    assert refused("Apache-2.0", "MIT") == "its licence is Apache-2.0"
    assert refused("Apache-2.0", "gemma, commercial") is None
