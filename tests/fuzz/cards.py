"""Cards of data sets, their files, and the archives that they name."""

from __future__ import annotations

import hashlib
import io
import socket
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import recvae
from tests.fuzz.changes import change_bytes, change_tree, toml_text
from tests.fuzz.folders import OUTSIDE, read_files, write_files
from tests.fuzz.judging import Kind, Mutant, Random, WrongError

COLUMNS = "user,item,value,time\n" + "".join(
    f"{u},{(u * k) % 11},{1 + k % 5},{10**9 + 1000 * u + k}\n" for u in range(9) for k in range(6)
)
LINES = "".join(f"{u} " + " ".join(str((u * k) % 11) for k in range(1, 6)) + "\n" for u in range(9))
BLOCKS = "".join(f"{i}:\n" + "".join(f"{u},{1 + u % 5},2005-09-06\n" for u in range(i, i + 6)) for i in range(1, 7))
TITLES = "".join(f"{i}|Film {i}|Drama\n" for i in range(12))
DATES = "1,20,3,2005-09-06\n"
TEST = {"file": "dates.csv", "columns": ["user", "item", "value", "time"]}
FILES = {"dates.csv": DATES, "events.csv": COLUMNS, "lists.txt": LINES, "blocks.txt": BLOCKS, "items.txt": TITLES}
PROTOCOL: dict[str, Any] = {"heldout_users": 2, "min_user": 1, "metrics": ["ndcg@10"]}
CARDS: dict[str, dict[str, Any]] = {
    "columns": {
        "name": "columns",
        "title": "Columns",
        "path": "events.csv",
        "protocol": PROTOCOL | {"min_value": 2.0},
        "events": {"header": True, "columns": ["user", "item", "value", "time"]},
        "items": {"file": "items.txt", "delimiter": "|", "columns": ["item", "title", "genres"]},
        "expected": {"users": 9, "items": 11, "events": 54},
        "published": {"Someone": {"ndcg@10": 0.3}},
    },
    "adjacency": {
        "name": "adjacency",
        "title": "Lists",
        "path": "lists.txt",
        "protocol": PROTOCOL,
        "events": {"layout": "adjacency", "delimiter": " "},
    },
    "blocks": {
        "name": "blocks",
        "title": "Blocks",
        "path": "blocks.txt",
        "protocol": PROTOCOL | {"split": "temporal"},
        "events": {"layout": "blocks", "columns": ["user", "value", "time"]},
    },
    "archive": {
        "name": "archive",
        "title": "Archive",
        "protocol": PROTOCOL,
        "download": {"url": "http://127.0.0.1:9/data.zip", "checksum": "", "folder": "data"},
        "events": {"file": "events.csv", "header": True, "columns": ["user", "item", "value", "time"]},
    },
}
CARDS["blocks"]["protocol"].pop("heldout_users")
FOLDERS = ["../outside", "..", ".", "", "/etc", "data/../..", "outside", "../../precious", "a\0b", "data\n"]


class Cards(Kind):
    """TOML cards with files beside them."""

    name = "cards"

    def open(self, folder: Path) -> None:
        # no card may keep the harness waiting for a network that is not there
        def refuse(*given: Any, **more: Any) -> Any:
            raise OSError("no network here")

        socket.getaddrinfo = socket.create_connection = refuse

    def directed(self) -> list[Any]:
        texts = {
            "deep brackets": b"a = " + b"[" * 50_000,
            "deep tables": b"[" + b"a." * 10_000 + b"b]",
            "no TOML": b"name = ",
            "bytes that are no text": b'name = "\xff"',
            "a long number": b"a = " + b"9" * 6000,
            "nothing": b"",
        }
        made: list[Any] = [self._text(name, text) for name, text in texts.items()]
        changes: list[tuple[str, str, Any]] = [
            ("columns", "an absolute file", lambda c: c["items"].update(file="/etc/passwd")),
            ("columns", "no delimiter", lambda c: c["events"].update(delimiter="")),
            ("columns", "a layout that is none", lambda c: c["events"].update(layout="odd\n")),
            ("columns", "no columns", lambda c: c["events"].update(columns=[])),
            ("columns", "columns without user", lambda c: c["events"].update(columns=["item"])),
            ("columns", "items without a file", lambda c: c["items"].update(file="")),
            ("columns", "figures that are none", lambda c: c["published"].update(Someone=[])),
            ("columns", "no events", lambda c: c.pop("events")),
            ("columns", "a key that is unknown", lambda c: c.update(odd=1)),
            ("columns", "a table that is a number", lambda c: c.update(protocol=3)),
            ("columns", "a title that is a number", lambda c: c.update(title=3)),
            ("columns", "a metric that is none", lambda c: c["protocol"].update(metrics=["odd"])),
            ("columns", "no metric", lambda c: c["protocol"].update(metrics=[])),
            ("columns", "a pattern that is none", lambda c: c["items"].update(file="**x")),
            ("columns", "a path above the folder", lambda c: c.update(path="../events.csv")),
            ("columns", "a number of 65 bits", lambda c: c["protocol"].update(min_user=2**64)),
            ("columns", "a file above the folder", lambda c: c["items"].update(file="../outside.txt")),
            ("columns", "items that are not there", lambda c: c["items"].update(file="nowhere.txt")),
            ("columns", "titles with a header that is none", lambda c: c["items"].update(header=True)),
            ("columns", "a test without values", lambda c: c.update(test=TEST | {"columns": ["user", "item", "", ""]})),
            ("columns", "a test with dates", lambda c: c.update(test=TEST)),
        ]
        made += [self._card(card, name, change) for card, name, change in changes]
        texts_of_files = [
            ("columns", "items.txt", TITLES + "1|x\n"),
            ("columns", "items.txt", "item|title|genres\n" + TITLES),
            ("adjacency", "lists.txt", LINES + "0 1\t2\n"),
            ("adjacency", "lists.txt", LINES + "0 1  2\n"),
            ("adjacency", "lists.txt", "".join(f"2 {a} {a + 1}\n" for a in range(20, 29))),
            ("adjacency", "lists.txt", "user item\n" + LINES),
            ("blocks", "blocks.txt", "7,3,2005-09-06\n" + BLOCKS),
            ("blocks", "blocks.txt", BLOCKS.replace("1:\n", "1:\n\n", 1)),
        ]
        for card, file, text in texts_of_files:
            made.append(
                lambda random, card=card, file=file, text=text: Mutant(
                    f"{card}: another {file}", self._files(CARDS[card]) | {file: text.encode()}
                )
            )
        for folder in FOLDERS:
            made.append(
                self._card("archive", f"the folder {folder!r}", lambda c, f=folder: c["download"].update(folder=f))
            )
            made.append(self._card("archive", f"a file {folder!r}", lambda c, f=folder: c["events"].update(file=f)))
            made.append(self._card("archive", f"the name {folder!r}", lambda c, f=folder: c.update(name=f)))
        for name in (
            "../evil",
            "/evil",
            "data/../../evil",
            "bomb",
            "encrypted",
            "link",
            "not a zip",
            "another sum",
            "many",
        ):
            made.append(lambda random, name=name: Mutant(f"archive with {name}", self._files(CARDS["archive"], name)))
        return made

    def _text(self, name: str, text: bytes) -> Any:
        return lambda random: Mutant(f"columns: {name}", self._files(CARDS["columns"]) | {"card.toml": text}, False)

    def _card(self, card: str, name: str, change: Any) -> Any:
        def make(random: Random) -> Mutant:
            changed = tomllib.loads(toml_text(CARDS[card]))
            change(changed)
            return Mutant(f"{card}: {name}", self._files(changed))

        return make

    def _files(self, card: Any, trick: str = "") -> dict[str, bytes]:
        archive = zipped(trick)
        right = f"md5:{hashlib.md5(archive).hexdigest()}"
        if trick == "another sum":
            right = "md5:0"
        if isinstance(card, dict) and isinstance(card.get("download"), dict) and card["download"].get("checksum") == "":
            card = card | {"download": card["download"] | {"checksum": right}}
        files = {name: text.encode() for name, text in FILES.items()}
        return files | {"card.toml": toml_text(card).encode(), "home/data.zip": archive}

    def mutant(self, random: Random) -> Mutant:
        name = str(random.choice(list(CARDS)))
        how = str(random.choice(["card", "file", "text", "archive"], p=[0.6, 0.15, 0.15, 0.1]))
        files = self._files(CARDS[name])
        if how == "card":
            card, said = CARDS[name], []
            for _ in range(int(random.integers(1, 3))):
                card, what = change_tree(random, card)
                said.append(what)
            return Mutant(f"{name}: {'; '.join(said)}", self._files(card))
        if how == "archive":
            raw, what = change_bytes(random, files["home/data.zip"])
            card = CARDS["archive"] | {
                "download": CARDS["archive"]["download"] | {"checksum": f"md5:{hashlib.md5(raw).hexdigest()}"}
            }
            return Mutant(f"archive: {what}", self._files(card) | {"home/data.zip": raw})
        target = "card.toml" if how == "text" else CARDS[name].get("path", "events.csv")
        files[target], what = change_bytes(random, files[target])
        return Mutant(f"{name}: {target}: {what}", files, how == "file")

    def judge(self, mutant: Mutant, folder: Path) -> str:
        write_files(folder, OUTSIDE)
        here = write_files(folder / "here", mutant.content)
        try:
            data = recvae.load_dataset(str(here / "card.toml"), here / "home", show_progress=False)
            matrix = data.matrix
            if not (np.isfinite(matrix.data) & (matrix.data > 0)).all() or not matrix.has_sorted_indices:
                raise WrongError(f"values that are none load; {matrix.data}")
            if matrix.shape != (len(data.user_ids), len(data.item_ids)) or len(set(data.item_ids)) < len(data.item_ids):
                raise WrongError(f"ids for others; {matrix.shape}")
            recvae.load_split(str(here / "card.toml"), here / "home", show_progress=False)
        finally:
            left = {name: content for name, content in read_files(folder).items() if not name.startswith("here/")}
            if left != OUTSIDE:
                raise WrongError(f"something outside was changed; {sorted(left)}")
            mine = {name: content for name, content in read_files(here).items() if not name.startswith("home/")}
            if mine != {name: each for name, each in mutant.content.items() if not name.startswith("home/")}:
                raise WrongError(f"files beside the card were changed; {sorted(mine)}")
        return "loaded"


def zipped(trick: str = "") -> bytes:
    """An archive of events, with a trick."""
    if trick == "not a zip":
        return b"not a zip"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/events.csv", COLUMNS)
        if trick in ("../evil", "/evil", "data/../../evil"):
            archive.writestr(trick, "evil")
        elif trick == "bomb":
            with archive.open("data/zeros", "w", force_zip64=True) as zeros:
                for _ in range(64):
                    zeros.write(bytes(1 << 20))
        elif trick == "link":
            entry = zipfile.ZipInfo("data/link")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc")
        elif trick == "many":
            for number in range(3000):
                archive.writestr(f"data/{number}", "")
    raw = bytearray(made.getvalue())
    if trick == "encrypted":
        raw[6] |= 1
        raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)
