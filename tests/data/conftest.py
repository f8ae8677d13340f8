"""What the tests of data share: a server of small archives, and what asks it."""

import pooch
import pytest
from served import SERVED, SMALL, serving

from replication.data.getting.download import download


@pytest.fixture
def waits(monkeypatch):
    """The seconds that are waited between attempts; none of them are."""

    class Clock:
        asked: list[float] = []
        sleep = asked.append

    monkeypatch.setattr(pooch.core, "time", Clock)
    Clock.asked.clear()
    return Clock.asked


@pytest.fixture
def server(monkeypatch, waits):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(SERVED) as running:
        yield running


@pytest.fixture
def get(server, tmp_path):
    """`download` from the server into tmp_path/data, without waits."""

    def run(**options):
        keys = options.pop("datasets", ("zenodo", "medseg"))
        given = {
            "sources": SMALL, "base_urls": dict.fromkeys(keys, server.url), "timeout": 5,
            "progress": False, "tries": 3, "datasets": keys,
        }  # fmt: skip
        return download(tmp_path / "data", **{**given, **options})

    return run
