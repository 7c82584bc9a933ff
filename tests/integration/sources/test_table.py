"""What the catalog shows of the sales table, on a real PostgreSQL: what stops capture and what is harmless."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest
from psycopg2 import errors
from structlog.testing import capture_logs

from contracts.settings import SalesDbSettings
from kafka_client.errors import Refused
from sources.postgres.database import Database
from sources.postgres.publication import Published
from sources.postgres.rows import ChangeEvent
from sources.postgres.shape import Shape
from stack import databases

ACCEPTED = "ELECTRORED_SALES_PUBLICATION_ACCEPTED="
ROW = (
    "insert into public.sales (sale_id, sold_at, city, country, salesman_id, salesman_name, product, quantity, amount,"
    " currency) values ('{}', now(), 'Berlin', 'DE', 's1', 'Ada', 'TV', 2, 10, 'EUR')"
)


class Looking:
    """Capture's checks of the table alone: a repeated one, and that of each start."""

    def __init__(self, settings: SalesDbSettings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.run(*(ROW.format(n) for n in range(20)), "alter table public.sales add note text")
        self.begin()

    def begin(self) -> None:
        """As a first start: any state of the table is right."""
        self.running = Published(self.database, "")
        self.running.check()
        self.running.watch()
        self.keep()

    def keep(self) -> None:
        """As a commit: what was seen is in the position."""
        self.known = self.running.mark, json.dumps(self.running.kept.to_json())

    def run(self, *statements: str) -> None:
        for statement in statements:
            self.database.ask(statement)

    def look(self, shown: Iterable[ChangeEvent] = ()) -> None:
        """A check, and the stream that passes it and has shown these events since."""
        self.running.watch()
        self.running.passed(shown, self.database.insert_lsn())

    def start(self, accepted: str = "", shown: Iterable[ChangeEvent] = ()) -> None:
        """What a start does that finds the position of before, and the stream behind it."""
        published = Published(self.database, accepted)
        published.check(self.running.oid)
        mark, shape = self.known
        published.check_history(mark, Shape.from_json(json.loads(shape)))
        published.passed(shown, self.database.insert_lsn())

    def refusal(self) -> str:
        """What both raise."""
        with pytest.raises(Refused) as running:
            self.look()
        with pytest.raises(Refused) as starting:
            self.start()
        line = str(starting.value)
        assert str(running.value).startswith(line)
        assert "\n" not in line
        return line


@pytest.fixture
def looking(sales_db: SalesDbSettings) -> Iterator[Looking]:
    database = Database(sales_db)
    with closing(database):
        yield Looking(sales_db, database)


HARMLESS = (
    "vacuum full public.sales",
    "cluster public.sales using sales_pkey",
    "reindex table public.sales",
    "vacuum (full, freeze) pg_attribute; vacuum (full, freeze) pg_class; vacuum (freeze) public.sales",
    "analyze public.sales",
    "alter table public.sales alter amount set statistics 200",
    "alter table public.sales alter city set storage external",
    "alter table public.sales alter city set compression pglz",
    "alter table public.sales alter quantity set default 1",
    "alter table public.sales alter product drop not null",
    f"grant select (amount) on public.sales to {databases.CAPTURE}",
    f"alter table public.sales owner to {databases.CAPTURE}",
    "alter table public.sales replica identity default; alter table public.sales replica identity full",
    "alter table public.sales disable trigger user",
    "alter table public.sales add check (amount > -1e6)",
    "create index on public.sales (city)",
    "alter table public.sales add extra int default 3",
    "alter table public.sales add volatile float default random()",
    "alter table public.sales alter note type text using note || 'x'",
    "alter table public.sales drop note",
    # Without a new file.
    "alter table public.sales alter amount type numeric(20, 4)",
    "alter table public.sales alter city type text",
    'alter table public.sales alter city type text collate "C"',
    "alter table public.sales alter quantity type bigint",
    "alter table public.sales alter quantity type smallint",
    "alter table public.sales rename city to town; alter table public.sales rename town to city",
    "create table public.kid () inherits (public.sales); drop table public.kid",
    "alter table public.sales enable row level security",
)


def test_row_2_what_keeps_the_values_stops_nothing(looking: Looking) -> None:
    """One after the other, each with a check of its own, as capture has them every second."""
    for statements in HARMLESS:
        looking.run(*statements.split("; "))
        looking.running.watch()
        looking.keep()
        looking.start()


def test_row_2_a_vacuum_full_spreads_the_value_of_a_column_that_was_added(looking: Looking) -> None:
    """The catalog's row of the column is written anew with the file, and no value is another."""
    added = (
        "alter table public.sales drop city",
        "alter table public.sales add city text not null default 'X'",
    )
    looking.run(*added)
    looking.begin()
    looking.run("vacuum full public.sales")
    looking.running.watch()
    looking.start()
    looking.run(*added)
    looking.begin()
    looking.run("alter table public.sales alter city type text using 'Y'")
    assert "city (text) were" in looking.refusal()


NOTICED = {
    "alter table public.sales alter amount type numeric(18, 4) using amount / 100": "amount (numeric(18,4)) were",
    "alter table public.sales alter amount type numeric(18, 2)": "amount (numeric(18,4), now numeric(18,2)) were",
    "alter table public.sales alter city type text using upper(city)": "city (text) were",
    "alter table public.sales alter city type varchar(99)": "city (text, now character varying(99)) were",
    "alter table public.sales alter quantity type int using quantity * 10": "quantity (integer) were",
    "alter table public.sales alter quantity type bigint using quantity * 10": "quantity has another type, and some",
    "alter table public.sales alter sold_at type timestamptz using sold_at + interval '1 day'": "sold_at (timestamp",
    "alter table public.sales alter currency type char(3) using 'USD'": "currency (character(3)) were",
    # Undone, and the file of before is gone.
    "alter table public.sales alter amount type text; alter table public.sales alter amount type numeric(18, 4) "
    "using amount::numeric": "amount (numeric(18,4)) were",
    "alter table public.sales alter amount type numeric(18, 4) using 1; vacuum full public.sales": "amount (numeric",
    "begin; alter table public.sales drop city; alter table public.sales add city text not null default 'X'; commit":
    "city is another column than it was",
    "begin; alter table public.sales rename city to c; alter table public.sales rename country to city; "
    "alter table public.sales rename c to country; commit": "city is another column than it was",
    "alter table public.sales rename city to town; alter table public.sales rename note to city":
    "city is another column than it was",
    'alter table public.sales alter sale_id type text collate "ucs_basic"': "sale_id has another collation",
}  # fmt: skip


@pytest.mark.parametrize("statements", NOTICED)
def test_row_2_what_may_change_values_without_a_change_event_is_noticed(
    looking: Looking, statements: str
) -> None:
    looking.run(*statements.split("; "))
    line = looking.refusal()
    assert NOTICED[statements] in line
    assert "start anew with another slot and empty topics" in line
    accepted = line.partition(ACCEPTED)[2]
    looking.start(accepted)
    looking.run("alter table public.sales alter amount type numeric(18, 4) using 2")
    with pytest.raises(Refused, match=ACCEPTED):
        looking.start(accepted)


def test_row_6_somebody_who_has_locked_the_table_is_not_waited_for(looking: Looking) -> None:
    """Known quantities stay known; without any, the next check queries again."""
    known = looking.running.shape.quantities
    assert known
    starting = Published(looking.database, "")
    starting.check()
    with closing(Database(looking.settings)) as other:
        other.ask("begin")
        other.ask("lock table public.sales in access exclusive mode")
        looking.running.watch()
        assert looking.running.shape.quantities == known
        starting.watch()
        assert starting.shape.quantities == {}
        other.ask("rollback")
    starting.watch()
    assert starting.shape.quantities == known


@pytest.mark.parametrize(
    "change",
    [
        "update public.sales set quantity = 5",
        "delete from public.sales",
        "update public.sales set city = 'Bonn'",
    ],
)
def test_row_6_a_sampled_sale_that_the_stream_shows_changed_proves_nothing(
    looking: Looking, change: str
) -> None:
    """Whether the stream shows it before the cast is seen, after it, or only to a later start."""
    alter = "alter table public.sales alter quantity type {}"
    keep = looking.running.shape.quantities
    looking.run(f"{change} where sale_id = '0'")
    looking.running.passed([(True, (b"0",))], 0)
    assert looking.running.kept.quantities == {key: value for key, value in keep.items() if key != "0"}
    looking.run(alter.format("bigint"))
    looking.look()
    looking.keep()
    looking.run(f"{change} where sale_id = '1'", alter.format("int"))
    looking.running.watch()
    looking.keep()
    looking.look([(True, (b"1",)), (False, (b"1",))])
    looking.start(shown=[(True, (b"1",))])
    looking.keep()
    # And the sample goes on to prove.
    looking.run(alter.format("bigint using quantity + 1"))
    assert "some of its values are others" in looking.refusal()


def test_row_6_a_cast_that_changed_values_is_known_again_by_a_start_before_the_stream_has_passed(
    looking: Looking,
) -> None:
    looking.run("alter table public.sales alter quantity type bigint using quantity * 10")
    looking.running.watch()
    looking.running.watch()
    looking.keep()
    with pytest.raises(Refused, match="some of its values are others"):
        looking.start()


def test_row_2_the_former_order_is_allowed_until_the_stream_has_passed_an_accepted_change(
    looking: Looking,
) -> None:
    former = list(looking.running.shape.columns)
    looking.run(
        "alter table public.sales drop city", "alter table public.sales add city text not null default 'X'"
    )
    accepted = looking.refusal().partition(ACCEPTED)[2]
    published = Published(looking.database, accepted)
    published.check(looking.running.oid)
    mark, shape = looking.known
    published.check_history(mark, Shape.from_json(json.loads(shape)))
    now = list(published.shape.columns)
    assert now[-1] == "city"
    assert published.look_behind(0) == [now, former]
    published.passed((), 0)
    assert list(published.kept.columns) == former
    published.passed((), looking.database.insert_lsn())
    assert published.look_behind(0) == [now]
    assert published.kept.quantities


def test_row_2_a_position_from_before_the_shape_was_kept_is_gone_on_with(looking: Looking) -> None:
    looking.run("alter table public.sales alter amount type numeric(18, 4) using 2")
    looking.known = looking.known[0], "null"
    looking.start()


TELLING = {
    "alter table public.sales alter quantity type text":
    "quantity has the type text, which capture cannot read; integer or smallint or bigint is needed: "
    "alter table public.sales alter column quantity type integer using quantity::integer;",
    "alter table public.sales alter quantity type numeric": "quantity has the type numeric, which",
    "alter table public.sales alter sold_at type timestamp": "sold_at has the type timestamp without time zone, which",
    "create domain public.money as numeric(18, 4); alter table public.sales alter amount type public.money":
    "amount has the type",
    "alter table public.sales drop city": "no column city",
    "create table public.sales_2026 () inherits (public.sales)":
    "alter table public.sales_2026 no inherit public.sales;",
    "create table public.sales_2027 (like public.sales); alter table public.sales_2027 inherit public.sales; "
    "alter publication electrored_sales add table public.sales_2027": "inherit from public.sales: public.sales_2027",
    "drop publication electrored_sales; create publication electrored_sales for all tables; "
    "alter table public.sales set unlogged": "set logged;",
}  # fmt: skip


@pytest.mark.parametrize("statements", TELLING)
def test_rows_4_and_6_what_cannot_be_captured_is_noticed_at_once(looking: Looking, statements: str) -> None:
    looking.run(*statements.split("; "))
    with pytest.raises(Refused) as error:
        looking.running.watch()
    assert TELLING[statements] in str(error.value)
    with pytest.raises(Refused) as error:
        Published(looking.database, "").check()
    assert TELLING[statements] in str(error.value)


def test_row_4_a_table_that_becomes_a_partition_is_captured_unless_the_one_above_is_published_for_it(
    looking: Looking,
) -> None:
    looking.run(
        "alter table public.sales drop note",
        "create table public.whole (like public.sales) partition by list (country)",
        "alter table public.whole attach partition public.sales for values in ('DE')",
    )
    looking.running.watch()
    looking.run("alter publication electrored_sales set (publish_via_partition_root = true)")
    looking.begin()
    looking.run("alter publication electrored_sales add table public.whole")
    line = looking.refusal()
    cure = "alter publication electrored_sales set (publish_via_partition_root = false)"
    assert f"{cure};" in line
    looking.run(cure, "alter publication electrored_sales drop table public.whole")
    looking.begin()
    looking.run("alter table public.whole detach partition public.sales")
    looking.running.watch()
    with closing(Database(looking.settings.model_copy(update={"sales_table": "public.whole"}))) as whole:
        published = Published(whole, "")
        with pytest.raises(Refused, match="is a partitioned table; it must be an ordinary table"):
            published.check()


GENERATED = {
    "alter table public.sales add vat numeric generated always as (amount * 0.19) stored": (
        "vat is not published: alter publication electrored_sales set (publish_generated_columns = stored);",
        "alter publication electrored_sales set (publish_generated_columns = stored)",
    ),
    "alter table public.sales add vat numeric generated always as (amount * 0.19) virtual": (
        "alter table public.sales drop column vat; (it is virtual",
        "alter table public.sales drop column vat",
    ),
    "alter publication electrored_sales set table public.sales "
    "(sale_id, sold_at, city, country, salesman_id, salesman_name, product, quantity, amount, currency)": (
        "note is not published: alter publication electrored_sales set table public.sales;",
        "alter publication electrored_sales set table public.sales",
    ),
}


@pytest.mark.parametrize("statement", GENERATED)
def test_row_10_changes_that_the_server_refuses_are_reported_at_start_and_while_running(
    looking: Looking, statement: str
) -> None:
    """PostgreSQL 18 refuses the shop's own UPDATE and DELETE then; the cure that is named is one."""
    line, cure = GENERATED[statement]
    looking.run(statement)
    with capture_logs() as logged:
        if "set table" in statement:
            # What the publication holds of the table is part of its mark: see test_capture.
            looking.begin()
        else:
            looking.running.watch()
    assert line in str(logged)
    with pytest.raises(errors.InvalidColumnReference, match="cannot update table"):
        looking.run("update public.sales set amount = 3")
    with capture_logs() as logged:
        looking.running.watch()
    assert "refuses every" not in str(logged)
    with capture_logs() as logged:
        Published(looking.database, "").check()
    assert line in str(logged)
    looking.run(cure)
    looking.run("update public.sales set amount = 3")
    with capture_logs() as logged:
        Published(looking.database, "").check()
    assert "refuses every" not in str(logged)


def test_row_10_a_needed_column_that_is_generated_is_refused_with_a_cure_that_cures(looking: Looking) -> None:
    generated = "generated always as (quantity * 2.5)"
    for kind, cure in (
        ("virtual", "a virtual column is never published"),
        ("stored", "alter publication electrored_sales set (publish_generated_columns = stored);"),
    ):
        looking.run(
            "alter table public.sales drop amount",
            f"alter table public.sales add amount numeric(18, 4) {generated} {kind}",
        )
        with pytest.raises(Refused) as error:
            looking.begin()
        assert "leaves out amount" in str(error.value)
        assert cure in str(error.value)
    looking.run(cure)
    looking.begin()
    looking.run("alter table public.sales alter amount set expression as (quantity * 3.5)")
    assert "amount is generated by another expression" in looking.refusal()
    looking.begin()
    looking.run("alter table public.sales alter amount drop expression")
    looking.running.watch()
