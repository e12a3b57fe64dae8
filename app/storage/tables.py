"""Every table of ours, in one place; Alembic migrations are compared with it in `make check`.

Times are UTC seconds since 1970 (float). Money is integer micro-units. JSON columns hold documents that
are read and written whole. The engine (DBOS) keeps its own tables elsewhere.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: 64-bit on PostgreSQL; on SQLite only INTEGER is the rowid alias.
Serial = BigInteger().with_variant(Integer, "sqlite")

connections = Table(
    "connections",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("provider", String(40), nullable=False),
    Column("base_url", Text, nullable=False),
    Column("model", JSON, nullable=False),
    Column(
        "options", JSON, nullable=False
    ),  # provider's extra settings (http_json template, input_size, ...)
    Column("secret_encrypted", Text),  # Fernet token, or null
    Column("secret_ref", Text),  # env:NAME or file:PATH; stores no secret
    Column("secret_last4", String(4)),
    Column("price_micros", BigInteger, nullable=False),  # per query
    Column("currency", String(3), nullable=False),
    Column("requests_per_second", Float, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("max_batch", Integer, nullable=False),
    Column("labels", JSON, nullable=False),  # append-only: column order of stored answers
    Column("model_version", Text, nullable=False),  # last one answered; "" before the first
    Column("created_at", Float, nullable=False),
    Column("deleted_at", Float),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("classes", JSON, nullable=False),
    Column("counts", JSON, nullable=False),  # {split: {class: n}}
    Column("content_sha256", String(64), nullable=False),
    Column("report", JSON, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("deleted_at", Float),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("status", String(20), nullable=False),
    Column("want", String(10), nullable=False),  # run | pause | cancel: what the user asked last
    Column("status_reason", String(60)),
    Column("spec", JSON, nullable=False),  # the validated JobSpec
    Column("metadata", JSON, nullable=False),
    Column("connection_id", String(40), ForeignKey("connections.id"), nullable=False),
    Column("dataset_id", String(40), ForeignKey("datasets.id")),  # null: an imported program
    Column("fence", Integer, nullable=False),  # raised at each segment start; old holders can write nothing
    Column("revision", Integer, nullable=False),  # raised by every write: the ETag
    Column("progress", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("error", JSON),
    Column("labels", JSON),  # source labels frozen after the probe pass
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("deleted_at", Float),
    Index("ix_jobs_created", "created_at", "id"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("job_id", String(40), ForeignKey("jobs.id"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("kind", String(10), nullable=False),  # state: the one to resume from | program: a servable one
    Column("blob", LargeBinary, nullable=False),  # state: npz; program: safetensors
    Column("config", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("queries", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("job_id", "kind", "step"),
)

points = Table(  # the learning curve: one row per step
    "points",
    metadata,
    Column("job_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("queries", BigInteger, nullable=False),
    Column("spent_micros", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Column("data", JSON, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("job_id", String(40), ForeignKey("jobs.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),  # 1, 2, 3, ... without a gap
    Column("type", String(40), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)

budgets = Table(  # one row per scope that may spend: a job, an endpoint, a connection (account cap), a key
    "budgets",
    metadata,
    Column("scope", String(60), primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("cap", BigInteger),
    Column("queries_spent", BigInteger, nullable=False),
    Column("queries_reserved", BigInteger, nullable=False),
    Column("queries_cap", BigInteger),
    Column("unknown_queries", BigInteger, nullable=False),  # of queries_spent: outcome unknowable
    Column("cached_queries", BigInteger, nullable=False),
    Column("retried_queries", BigInteger, nullable=False),
    Column("payer", String(40)),  # the key whose own row is charged too
    CheckConstraint("spent >= 0 AND reserved >= 0", name="money_not_negative"),
    CheckConstraint("queries_spent >= 0 AND queries_reserved >= 0", name="queries_not_negative"),
    CheckConstraint("cap IS NULL OR spent + reserved <= cap", name="money_cap"),
    CheckConstraint(
        "queries_cap IS NULL OR queries_spent + queries_reserved <= queries_cap", name="queries_cap"
    ),
)

attempts = Table(  # one HTTP request to a provider: committed before its bytes leave
    "attempts",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("scope", String(60), nullable=False),
    Column("connection_id", String(40), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("price_micros", BigInteger, nullable=False),  # per image
    Column("purpose", String(20), nullable=False),
    Column("outcome", String(12), nullable=False),  # open | answered | partial | released | unknown
    Column("billed", Integer, nullable=False),  # images counted as spent
    Column("http_status", Integer),
    Column("request_id", String(120)),
    Column("code", String(60)),  # error code when not answered
    Column("sent_at", Float, nullable=False),
    Column("done_at", Float),
    Column("payer", String(40)),  # the key that is charged too
    Column("model_version", String(200)),  # as answered; null: no answer, or it does not say
    Index("ix_attempts_scope", "scope", "id"),
    Index(
        "ix_attempts_open",
        "scope",
        "connection_id",
        sqlite_where=text("outcome = 'open'"),
        postgresql_where=text("outcome = 'open'"),
    ),
)

answers = Table(
    "answers",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("key", LargeBinary(20), nullable=False, unique=True),
    Column("scores", LargeBinary, nullable=False),  # float32, connection's label order, NaN = censored
)

file_keys = Table(  # answers up to this one are keyed by the image file sent, later ones by its pixels
    "file_keys",
    metadata,
    Column("last_answer", BigInteger, primary_key=True, autoincrement=False),
)

claims = Table(  # an image that an open attempt is buying: nobody else buys it meanwhile
    "claims",
    metadata,
    Column("key", LargeBinary(20), primary_key=True),  # of the answer
    Column("attempt_id", BigInteger, nullable=False, index=True),
)

rates = Table(
    "rates",
    metadata,
    Column("credential", String(60), primary_key=True),
    Column("arrival", Float, nullable=False),  # GCRA theoretical arrival time, database clock
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("version", Integer, nullable=False),  # the live one
    Column("enabled", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

endpoint_versions = Table(
    "endpoint_versions",
    metadata,
    Column("endpoint_id", String(40), ForeignKey("endpoints.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("job_id", String(40), nullable=False),
    Column("checkpoint_id", String(40), ForeignKey("checkpoints.id"), nullable=False),
    Column("connection_id", String(40), ForeignKey("connections.id"), nullable=False),
    Column("created_at", Float, nullable=False),
)

canaries = Table(  # fixed queries on a schedule: do an endpoint's answers move?
    "canaries",
    metadata,
    Column("endpoint_id", String(40), ForeignKey("endpoints.id"), primary_key=True),
    Column("queries", Integer, nullable=False),
    Column("every_seconds", Float, nullable=False),
    Column("tolerance", Float, nullable=False),
    Column("state", String(10), nullable=False),  # waiting | ok | degraded
    Column("version", Integer, nullable=False),  # the endpoint's, that the baseline is of
    Column("baseline", JSON),  # {model_version, answers: one {label: score} per query}; null: not taken yet
    Column("last", JSON),  # what the last run found
    Column("next_at", Float, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of a 256-bit random key
    Column("last4", String(4), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
    Column("requests_per_second", Float),  # null: no limit
    Column("currency", String(3)),  # of the key's cap; null: no cap
)

audit = Table(  # who changed or spent what: one line for each answer to a call that is no read
    "audit",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("action", String(60), nullable=False),  # the route's name: create_job, predict, ...
    Column("resource", String(200), nullable=False),  # a path
    Column("request_id", String(128), nullable=False),
    Column("status", Integer, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),  # by this call itself
    Column("currency", String(3)),
    Index("ix_audit_key", "key_id", "id"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),  # types, `*` at the end stands for the rest
    Column("secret_encrypted", Text, nullable=False),
    Column("enabled", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("old_secret_encrypted", Text),  # signs beside the new one
    Column("old_secret_until", Float),
)

deliveries = Table(  # one message to one webhook; its id is the message's own and stays over tries
    "deliveries",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("webhook_id", String(40), ForeignKey("webhooks.id"), nullable=False),
    Column("type", String(40), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("status", String(10), nullable=False),  # pending | delivered | failed
    Column("attempts", Integer, nullable=False),
    Column("next_at", Float, nullable=False),  # when it is due
    Column("http_status", Integer),
    Column("error", String(300)),
    Column("created_at", Float, nullable=False),
    Column("done_at", Float),
    Index("ix_deliveries_due", "status", "next_at"),
    Index("ix_deliveries_webhook", "webhook_id", "id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("caller", String(60), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("status", Integer),  # null: still in progress
    Column("headers", JSON),
    Column("body", LargeBinary),
    Column("created_at", Float, nullable=False),
)

executors = Table(  # the processes that run jobs, with their heartbeats (database clock)
    "executors",
    metadata,
    Column("id", String(120), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("started_at", Float, nullable=False),  # tells a process from an earlier one of the same id
    Column("beat_at", Float, nullable=False),
)
