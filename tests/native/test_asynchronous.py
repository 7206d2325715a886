"""Asynchronous runs: 202, state, resumable events, cancellation, retention."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.server import RunningServer
from tests.support.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}


def submit(client: httpx.Client, code: str, **body: Any) -> str:
    answer = client.post("/runs", json={"language": "bash", "code": code, **body}, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    state = answer.json()
    assert answer.headers["location"] == f"/api/v1/runs/{state['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert state["runtime"]["language"] == "bash"
    return str(state["id"])


def wait(client: httpx.Client, run_id: str) -> dict[str, Any]:
    """Wait for the result of a run."""

    def ended() -> bool:
        state = client.get(f"/runs/{run_id}").json()
        assert (state["state"] == "ended") == (state["result"] is not None)
        return bool(state["state"] == "ended")

    wait_until(ended, f"the end of {run_id}")
    state = client.get(f"/runs/{run_id}").json()
    assert state["result"]["id"] == run_id
    return dict(state["result"])


def read_events(
    client: httpx.Client, run_id: str, last_event_id: int | None = None, stop_after: int = 10**9
) -> list[dict[str, Any]]:
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    events: list[dict[str, Any]] = []
    with client.stream("GET", f"/runs/{run_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        block: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                block[name] = value
                continue
            event = json.loads(block["data"])
            assert (block["event"], block["id"]) == (event["type"], str(event["sequence"]))
            events.append(event)
            block = {}
            if len(events) >= stop_after:
                break
    return events


def text(events: list[dict[str, Any]], stream: str = "stdout") -> str:
    return "".join(event["data"] for event in events if event["type"] == "output" and event["stream"] == stream)


def test_runs_on_its_own_and_keeps_its_result(client: httpx.Client) -> None:
    run_id = submit(client, "echo kept; exit 5")
    result = wait(client, run_id)
    assert (result["verdict"], result["run"]["stdout"], result["run"]["exit_code"]) == ("runtime_error", "kept\n", 5)


def test_events_come_in_order_to_the_last(client: httpx.Client) -> None:
    events = read_events(client, submit(client, "echo a; echo b >&2; sleep 0.1; echo c"))
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(set(sequences))
    assert [events[0]["type"], events[-2]["type"], events[-1]["type"]] == ["stage_started", "stage_exited", "finished"]
    assert (text(events), text(events, "stderr")) == ("a\nc\n", "b\n")
    assert events[-1]["result"]["verdict"] == "ok"
    assert "stdout" not in events[-1]["result"]["run"]


def test_events_resume_where_a_reader_stopped(client: httpx.Client) -> None:
    run_id = submit(client, "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.05; done")
    seen = read_events(client, run_id, stop_after=4)
    rest = read_events(client, run_id, last_event_id=seen[-1]["sequence"])
    assert text(seen + rest) == "1\n2\n3\n4\n5\n6\n7\n8\n"
    assert rest[0]["sequence"] > seen[-1]["sequence"]


def test_events_can_be_read_again_after_the_end(client: httpx.Client) -> None:
    run_id = submit(client, "printf one; sleep 0.1; printf two; sleep 0.1; printf three")
    first = read_events(client, run_id)
    for event in first[:-1]:
        seen = [each for each in first if each["sequence"] <= event["sequence"]]
        assert text(seen + read_events(client, run_id, last_event_id=event["sequence"])) == "onetwothree"


def test_a_character_split_between_two_readers_survives(client: httpx.Client) -> None:
    run_id = submit(client, "printf 'a\\xe2'; sleep 0.1; printf '\\x82'; sleep 0.1; printf '\\xacb'")
    wait(client, run_id)
    for stop in range(1, 4):
        seen = read_events(client, run_id, stop_after=stop)
        assert text(seen + read_events(client, run_id, last_event_id=seen[-1]["sequence"])) == "a€b"


def test_a_reader_of_the_last_event_gets_204(client: httpx.Client) -> None:
    run_id = submit(client, "true")
    last = read_events(client, run_id)[-1]["sequence"]
    assert client.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": str(last)}).status_code == 204


def test_two_readers_see_the_same(client: httpx.Client) -> None:
    run_id = submit(client, "for i in 1 2 3; do echo $i; sleep 0.05; done")
    with client.stream("GET", f"/runs/{run_id}/events") as unread:
        assert text(read_events(client, run_id)) == "1\n2\n3\n"
        assert "finished" in unread.read().decode()


def test_a_reader_that_leaves_does_not_end_the_run(client: httpx.Client) -> None:
    run_id = submit(client, "echo a; sleep 0.3; echo b")
    read_events(client, run_id, stop_after=1)
    assert wait(client, run_id)["run"]["stdout"] == "a\nb\n"


def test_cancel_ends_a_run_at_once(client: httpx.Client) -> None:
    run_id = submit(client, "echo started; sleep 50")
    answer = client.delete(f"/runs/{run_id}")
    assert answer.status_code == 200
    assert answer.json()["state"] == "ended"
    assert answer.json()["result"]["verdict"] == "cancelled"


def test_cancel_after_the_end_changes_nothing(client: httpx.Client) -> None:
    run_id = submit(client, "exit 3")
    wait(client, run_id)
    for _ in range(2):
        assert client.delete(f"/runs/{run_id}").json()["result"]["verdict"] == "runtime_error"


def test_cancel_racing_the_end_has_one_outcome(client: httpx.Client) -> None:
    for _ in range(10):
        run_id = submit(client, "true")
        result = client.delete(f"/runs/{run_id}").json()["result"]
        assert result["verdict"] in {"ok", "cancelled"}
        assert client.get(f"/runs/{run_id}").json()["result"] == result
        assert read_events(client, run_id)[-1]["result"]["verdict"] == result["verdict"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_runs_are_404(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request.not_found")
    assert client.get("/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV/events").status_code == 404


def test_bad_requests_are_refused_at_once(client: httpx.Client) -> None:
    answer = client.post("/runs", json={"language": "klingon", "code": ""}, headers=ASYNC)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request.unknown_runtime")


def test_other_preferences_mean_nothing(client: httpx.Client) -> None:
    assert client.post("/runs", json={"language": "bash", "code": ""}, headers={"Prefer": "wait=5"}).status_code == 200
    answer = client.post("/runs", json={"language": "bash", "code": ""}, headers={"Prefer": 'wait=5, Respond-Async; x="y"'})
    assert answer.status_code == 202


def test_the_number_of_stored_results_is_limited(start_server: Callable[..., RunningServer]) -> None:
    with start_server("--runs-kept", "2").client() as client:
        ids = []
        for number in range(4):
            ids.append(submit(client, f"echo {number}"))
            wait(client, ids[-1])
        assert [client.get(f"/runs/{run_id}").status_code for run_id in ids] == [404, 404, 200, 200]


def test_stored_results_expire(start_server: Callable[..., RunningServer]) -> None:
    with start_server("--run-retention-s", "0").client() as client:
        run_id = submit(client, "true")
        wait_until(lambda: client.get(f"/runs/{run_id}").status_code == 404)
