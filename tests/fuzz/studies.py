"""Studies: SQLite files of Optuna's."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import recvae
from recvae.datasets.sample import make_sample
from tests.fuzz.changes import DEEP, change_bytes, json_text, nasty
from tests.fuzz.judging import Kind, Mutant, Random, WrongError

TRIALS = 4


def split() -> Any:
    """Few users."""
    return recvae.strong_split(make_sample(n_users=120, n_items=30).interactions, heldout_users=10)


class Studies(Kind):
    """The trials of a search, changed, and read by the same search."""

    name = "studies"

    def prepare(self, folder: Path) -> None:
        recvae.tune(recvae.EASE, split(), TRIALS, study=folder / "study.db", show_progress=False)

    def open(self, folder: Path) -> None:
        self.raw = (folder / "study.db").read_bytes()
        self.split = split()
        with sqlite3.connect(folder / "study.db") as database:
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            self.columns = {
                table: [row[1] for row in database.execute(f"pragma table_info({table})")]
                for table in tables
                if database.execute(f"select count(*) from {table}").fetchone()[0]
            }

    def directed(self) -> list[Any]:
        made: list[Any] = [
            lambda random: Mutant("no database", b"not a database", False),
            lambda random: Mutant("nothing", b"", False),
            lambda random: Mutant("as it was", self.raw),
            lambda random: Mutant("the database of others", _others()),
        ]
        lies = [
            ("another search", 'update study_user_attributes set value_json = \'{"model": "x"}\''),
            (
                "a search with control characters",
                'update study_user_attributes set value_json = \'{"model": "a\\n\\u001b"}\'',
            ),
            ("a search that is a list", "update study_user_attributes set value_json = '[1]'"),
            ("a search that is no JSON", "update study_user_attributes set value_json = '{'"),
            ("values that are infinite", "update trial_values set value = 9e999, value_type = 'INF_POS'"),
            ("values that are text", "update trial_values set value = 'x'"),
            ("no values", "delete from trial_values"),
            ("distributions that are none", "update trial_params set distribution_json = '{}'"),
            (
                "distributions of others",
                'update trial_params set distribution_json = \'{"name": "x", "attributes": {}}\'',
            ),
            ("parameters that are text", "update trial_params set param_value = 'x'"),
            ("parameters of another name", "update trial_params set param_name = 'odd'"),
            ("no notes", "delete from trial_user_attributes"),
            ("states that are none", "update trials set state = 'ODD'"),
            ("times that are none", "update trials set datetime_complete = 'x'"),
            ("no times", "update trials set datetime_start = null"),
            ("another version", "update version_info set schema_version = 99"),
            ("another library", "update alembic_version set version_num = 'odd'"),
            (
                "reports of epochs that are text",
                "insert into trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
                "values (1, 'x', 'y', 'FINITE')",
            ),
            ("a value above 1", "update trial_values set value = 7"),
            ("parameters out of range", "update trial_params set param_value = -5"),
            ("to be minimised", "update study_directions set direction = 'MINIMIZE'"),
            ("no table of trials", "drop table trials"),
            ("a deep search", f"update study_user_attributes set value_json = '{'[' * 9000}'"),
        ]
        return made + [self._statement(name, statement) for name, statement in lies]

    def _statement(self, name: str, statement: str) -> Any:
        return lambda random: Mutant(name, self._changed(statement, ()), True)

    def _changed(self, statement: str, values: tuple[Any, ...]) -> bytes:
        path = Path("being-made.db")
        path.write_bytes(self.raw)
        database = sqlite3.connect(path)
        try:
            database.execute(statement, values)
            database.commit()
        except (sqlite3.Error, OverflowError, UnicodeEncodeError):
            pass
        finally:
            database.close()
        raw = path.read_bytes()
        path.unlink()
        return raw

    def mutant(self, random: Random) -> Mutant:
        if random.random() < 0.2:
            raw, what = change_bytes(random, self.raw)
            return Mutant(what, raw, False)
        table = str(random.choice(list(self.columns)))
        column = str(random.choice(self.columns[table]))
        value = nasty(random)
        if not isinstance(value, (int, float, str)) or value == DEEP:
            value = json_text(value)
        how = int(random.integers(4))
        if how == 0:
            statement: str = f"delete from {table}" + (" where rowid = 1" if random.random() < 0.7 else "")
            return Mutant(statement, self._changed(statement, ()))
        where = " where rowid = 1" if how > 1 else ""
        if isinstance(value, int) and abs(value) >= 2**63:
            value = str(value)
        return Mutant(
            f"{table}.{column} = {value!r:.60}{where}",
            self._changed(f"update {table} set {column} = ?{where}", (value,)),
        )

    def judge(self, mutant: Mutant, folder: Path) -> str:
        Path("study.db").write_bytes(mutant.content)
        found = recvae.tune(recvae.EASE, self.split, TRIALS, study="study.db", show_progress=False)
        values = [trial.value for trial in found.trials if trial.value is not None]
        if not all(isinstance(value, float) for value in (found.value, *values)):
            raise WrongError(f"values that are no numbers are read; {found.value!r} {values}")
        if not 0 <= found.value <= 1 or any(not 0 <= value <= 1 for value in values):
            raise WrongError(f"a value of ndcg@100 that is none; {found.value} {values}")
        if not 0 <= found.params["l2"] < float("inf"):
            raise WrongError(f"settings that are none; {found.params}")
        return "went on"


def _others() -> bytes:
    path = Path("others.db")
    with sqlite3.connect(path) as database:
        database.execute("create table users (name text)")
    database.close()
    raw = path.read_bytes()
    path.unlink()
    return raw
