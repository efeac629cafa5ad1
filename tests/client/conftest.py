"""A session of the real worker, and what is done to it over HTTP."""

import time

import httpx
import pytest

QUESTION = {"query": "Is it hot?", "choices": ["yes", "no"], "name": "hot"}


class Session:
    """One session: push readings, ask what stands."""

    def __init__(self, url):
        self.http = httpx.Client(base_url=url, timeout=60)
        body = {"type": "iot", "prompt": "Sensors.", "flash": [QUESTION]}
        self.id = self._ok(self.http.post("/v1/sessions/init", json=body))["session_id"]

    @staticmethod
    def _ok(response):
        assert response.status_code == 200, response.text
        return response.json()

    def push(self, value):
        """Push one reading and wait for its answer; returns the answer's version."""
        before = self.standing()["current_data_version"]
        path = f"/v1/sessions/{self.id}/stream/push"
        self._ok(self.http.post(path, json={"data": [{"sid": "t1", "val": value}]}))
        for _ in range(600):
            version = self.standing()["current_data_version"]
            if version > before:
                return version
            time.sleep(0.05)
        raise AssertionError("no answer within 30 s")

    def standing(self):
        """The questions and their answers now."""
        return self._ok(self.http.get(f"/v1/sessions/{self.id}/flash"))

    def delete(self):
        self._ok(self.http.delete(f"/v1/sessions/{self.id}"))


@pytest.fixture
def session(worker):
    one = Session(worker.url)
    yield one
    one.http.delete(f"/v1/sessions/{one.id}")
    one.http.close()
