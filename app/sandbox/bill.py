"""What the provider would charge: counted by the provider's side, independently of whoever asks."""

from dataclasses import dataclass, field

from app.sandbox.rates import Peak

UNKNOWN_KEY = "(refused)"  # keys nobody issued share one line, so that guessing keys cannot fill the memory


@dataclass
class Account:
    """Counts of one key, one model of one key, or everything."""

    billable_queries: int = 0
    requests: int = 0
    throttled: int = 0
    failed: int = 0
    amount: int = 0  # micro-USD
    images: set[bytes] = field(default_factory=set[bytes])
    peak: Peak = field(default_factory=Peak)

    def summary(self) -> dict[str, object]:
        return {
            "billable_queries": self.billable_queries,
            "requests": self.requests,
            "distinct_images": len(self.images),
            "throttled": self.throttled,
            "failed": self.failed,
            "highest_rps": self.peak.highest,
            "amount": self.amount,
        }


class Bill:
    """All accounts since the last reset. Used from the event loop only.

    `requests` and `highest_rps` count every request that came, refused ones too; `throttled` those refused
    for the rate; `failed` those answered with any other error, in part or whole, or with a lost reply;
    `billable_queries` images that were scored, whether or not the reply arrived.
    """

    def __init__(self) -> None:
        self._total = Account()
        self._keys: dict[str, Account] = {}
        self._models: dict[tuple[str, str], Account] = {}
        self._prices: dict[str, int] = {}

    def arrived(self, key: str, model: str, now: float) -> None:
        """One request of `key` for `model` at `now` seconds."""
        for account in self._accounts(key, model):
            account.requests += 1
            account.peak.count(now)

    def throttled(self, key: str, model: str) -> None:
        """That request was refused for its rate."""
        for account in self._accounts(key, model):
            account.throttled += 1

    def failed(self, key: str, model: str) -> None:
        """That request was answered with another error, or not at all."""
        for account in self._accounts(key, model):
            account.failed += 1

    def charge(self, key: str, model: str, digests: list[bytes], price_micros: int) -> None:
        """Images of those digests were scored, at `price_micros` micro-USD each."""
        self._prices[model] = price_micros
        for account in self._accounts(key, model):
            account.billable_queries += len(digests)
            account.amount += len(digests) * price_micros
            account.images.update(digests)

    def billed(self, key: str) -> int:
        """Queries charged to `key` so far."""
        return self._keys[key].billable_queries if key in self._keys else 0

    def summary(self) -> dict[str, object]:
        """The bill as JSON shows it: totals, then per key, then per key and model."""
        keys: dict[str, dict[str, object]] = {
            key: {**account.summary(), "models": {}} for key, account in self._keys.items()
        }
        for (key, model), account in self._models.items():
            price = self._prices.get(model)
            per_1000 = None if price is None else f"{price / 1000:.2f}"
            models = keys[key]["models"]
            assert isinstance(models, dict)
            models[model] = {**account.summary(), "price_per_1000": per_1000}
        return {**self._total.summary(), "currency": "USD", "amount_unit": "micro-USD", "keys": keys}

    def _accounts(self, key: str, model: str) -> tuple[Account, Account, Account]:
        return (
            self._total,
            self._keys.setdefault(key, Account()),
            self._models.setdefault((key, model), Account()),
        )
