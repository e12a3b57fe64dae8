"""The sandbox's own bill, its sliding second, and its process."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sandbox_client import Client, encoded, picture

from app.sandbox.bill import Bill
from app.sandbox.rates import Peak, RateWindow
from app.sandbox.server import SandboxConfig, running


def test_a_window_admits_exactly_the_limit_in_every_second() -> None:
    window = RateWindow()
    admitted = [n / 100 for n in range(500) if window.admit(n / 100, 15)]
    for start in admitted:
        assert sum(start <= time < start + 1 for time in admitted) <= 15
    assert len(admitted) == 75


def test_a_window_counts_only_admitted_requests_and_knows_no_limit() -> None:
    window = RateWindow()
    assert [window.admit(time, 1) for time in (0.0, 0.5, 0.99, 1.0, 1.5)] == [True, False, False, True, False]
    assert all(window.admit(0.0, 0) for _ in range(100))


def test_a_limit_below_one_per_second() -> None:
    window = RateWindow()
    assert [window.admit(time, 0.5) for time in (0.0, 1.0, 1.9, 2.0)] == [True, False, False, True]


def test_peak_is_the_highest_sliding_second() -> None:
    peak = Peak()
    for time in (0.0, 0.6, 0.7, 1.55, 1.59, 3.0):
        peak.count(time)
    assert peak.highest == 4


def test_bill_adds_up_by_key_and_model() -> None:
    bill = Bill()
    bill.arrived("a", "m", 0.0)
    bill.arrived("b", "n", 0.1)
    bill.charge("a", "m", [b"1", b"2", b"1"], 1200)
    bill.charge("b", "n", [b"1"], 2000)
    bill.failed("b", "n")
    summary = bill.summary()
    assert summary["billable_queries"] == 4
    assert summary["distinct_images"] == 2
    assert summary["amount"] == 3 * 1200 + 2000
    assert summary["highest_rps"] == 2
    keys = summary["keys"]
    assert isinstance(keys, dict)
    assert keys["a"]["models"]["m"]["price_per_1000"] == "1.20"
    assert keys["b"]["failed"] == 1
    assert keys["a"]["failed"] == 0


def test_bill_over_http(client: Client) -> None:
    one, two = encoded(picture(1)), encoded(picture(2))
    client.clarifai(one, two, one)
    client.custom_vision(two)
    bill = client.bill()
    models = bill.pop("models")
    assert bill == {
        "billable_queries": 4,
        "requests": 2,
        "distinct_images": 2,
        "throttled": 0,
        "failed": 0,
        "highest_rps": 2,
        "amount": 3 * 1200 + 2000,
    }
    assert isinstance(models, dict)
    assert models["clarifai/nsfw-recognition"]["billable_queries"] == 3
    assert models["custom_vision/traffic-signs"]["price_per_1000"] == "2.00"
    total = client.http.get("/bill").json()
    assert total["billable_queries"] == sum(key["billable_queries"] for key in total["keys"].values())
    assert client.http.post("/bill/reset").json()["billable_queries"] == 0
    assert client.http.get("/bill").json()["keys"] == {}


def test_strangers_share_one_line(client: Client) -> None:
    for n in range(5):
        client.http.post(
            "/v2/models/nsfw-recognition/outputs", json={}, headers={"Authorization": f"Key guess-{n}"}
        )
    keys = client.http.get("/bill").json()["keys"]
    assert keys["(refused)"]["failed"] >= 5
    assert not any(key.startswith("guess") for key in keys)


def test_keys_do_not_share_a_rate(client: Client) -> None:
    client.faults(rate_limit_rps=1)
    other = Client(client.http, f"{client.key}-other")
    image = encoded(picture(0, 16))
    assert [c.clarifai(image).status_code for c in (client, other, client, other)] == [200, 200, 429, 429]


def test_concurrent_requests_are_all_counted(client: Client) -> None:
    client.faults(rate_limit_rps=0)
    image = encoded(picture(0, 32))
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: client.clarifai(image, image), range(40)))
    assert {reply.status_code for reply in replies} == {200}
    bill = client.bill()
    assert (bill["billable_queries"], bill["requests"], bill["distinct_images"]) == (80, 40, 1)


def test_rate_limit_of_the_configuration() -> None:
    with (
        running(SandboxConfig(size=128, rate_limit_rps=2, workers=1)) as url,
        httpx.Client(base_url=url, timeout=30) as http,
    ):
        client = Client(http, "sandbox-configured")
        image = encoded(picture(0, 16))
        codes = [client.custom_vision(image).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        client.faults(rate_limit_rps=0)
        assert [client.custom_vision(image).status_code for _ in range(5)] == [200] * 5


def test_health(client: Client) -> None:
    assert client.http.get("/healthz").json() == {"status": "ok"}


def test_it_runs_as_a_process_and_says_where() -> None:
    command = [sys.executable, "-m", "app.sandbox", "--port", "0", "--size", "128", "--keys", "one, two"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    killer = threading.Timer(30, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Sandbox on ").strip()
        assert httpx.get(f"{url}/healthz", timeout=20).status_code == 200
        listed = httpx.get(f"{url}/v2/models", headers={"Authorization": "Key two"}, timeout=20)
        assert listed.status_code == 200
    finally:
        killer.cancel()
        process.terminate()
        process.communicate(timeout=20)


def test_a_taken_port_is_said_in_one_sentence(base_url: str) -> None:
    port = base_url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "app.sandbox", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("body", [b"", b"[]", b"{"])
def test_faults_must_be_an_object(client: Client, body: bytes) -> None:
    assert client.http.post("/faults", content=body).status_code == 400
