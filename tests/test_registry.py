import pickle

import pytest

from lightssl.errors import ConfigError, DataError
from lightssl.registry import Registry, did_you_mean


def test_names_resolve_on_use() -> None:
    registry = Registry("thing", {"sqrt": "math:sqrt", "broken": "no.such.module:x"})
    assert registry["sqrt"](9) == 3
    assert list(registry) == ["sqrt", "broken"]
    assert "sqrt" in registry


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"Unknown thing 'sqr'.\nDid you mean 'sqrt'\? Known: sqrt"):
        Registry("thing", {"sqrt": "math:sqrt"})["sqr"]
    assert did_you_mean("zzz", ["sqrt"]) is None


def test_errors_keep_their_hint_between_processes() -> None:
    for error in (DataError("what", "do this"), ConfigError("what", "do this", ["a: b"])):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
