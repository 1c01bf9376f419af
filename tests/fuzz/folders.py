"""Folders of files with a manifest, changed and sealed again; and what lies outside of them, which has to stay."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tests.fuzz.changes import change_bytes, change_tree, json_text
from tests.fuzz.judging import Kind, Mutant, Random, WrongError

MANIFEST = "_manifest.json"
Files = dict[str, bytes]
OUTSIDE = {
    "outside/letters/a.txt": b"work of years",
    "outside.txt": b"a diary",
    "precious/data.csv": b"user,item\n1,2\n",
}
PATHS = [
    "../outside.txt",
    "../outside/letters/a.txt",
    "../../x",
    "/etc/passwd",
    ".",
    "..",
    "",
    "a\0b",
    "x" * 300,
    "a\nb",
    "\ud800",
]


def read_files(folder: Path) -> Files:
    """All files of a folder by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_files(folder: Path, files: Files) -> Path:
    """The same, written."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def manifest_bytes(manifest: Any) -> bytes:
    """A manifest with a right checksum, where it has one."""
    if isinstance(manifest, dict) and "sha256" in manifest:
        content = {name: value for name, value in manifest.items() if name != "sha256"}
        try:
            whole = json.dumps(json.loads(json_text(content)), sort_keys=True)
        except (ValueError, RecursionError):  # what cannot be read needs none
            whole = ""
        manifest = content | {"sha256": hashlib.sha256(whole.encode()).hexdigest()}
    return json_text(manifest).encode()


def sealed(files: Files, manifest: Any, within: str = "") -> Files:
    """Files with a manifest whose sizes and digests are right for those of its parts that are there."""
    parts = manifest.get("parts") if isinstance(manifest, dict) else None
    for part in parts if isinstance(parts, list) else []:
        name = part.get("file") if isinstance(part, dict) else None
        content = files.get(within + name) if isinstance(name, str) else None
        if content is not None:
            part |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return files | {within + MANIFEST: manifest_bytes(manifest)}


class Folders(Kind):
    """A kind whose inputs are folders with a manifest.

    `within` is where the manifest is; `judge_folder` looks at a folder called "here" beside which there is more.
    """

    within = ""

    def open(self, folder: Path) -> None:
        self.originals = {path.name: read_files(path) for path in sorted(folder.iterdir()) if path.is_dir()}

    def choose(self, random: Random) -> tuple[str, Files, Any]:
        """One of the originals: its name, files and manifest."""
        names = list(self.originals)
        name = names[int(random.integers(len(names)))]
        files = dict(self.originals[name])
        return name, files, json.loads(files[self.within + MANIFEST])

    def directed(self) -> list[Any]:
        texts = {
            "nothing": b"",
            "no JSON": b"{",
            "a list": b"[]",
            "deep brackets": b"[" * 100_000,
            "a long number": b'{"format": ' + b"9" * 6000 + b"}",
            "bytes that are no text": b'{"format": "\xff\xfe"}',
            "a number": b"3",
        }
        made = [self._text(name, text) for name, text in texts.items()]
        changes: list[tuple[str, Any]] = [
            ("another format", lambda m: m.update(format=99)),
            ("a format that is text", lambda m: m.update(format="\x1b[31m\n")),
            ("no format", lambda m: m.pop("format")),
            ("another kind", lambda m: m.update(kind="pots\nand pans")),
            ("a kind that is a list", lambda m: m.update(kind=[1])),
            ("no parts", lambda m: m.update(parts=[])),
            ("parts twice", lambda m: m.update(parts=m["parts"] * 2)),
            ("parts that are numbers", lambda m: m.update(parts=[1, 2])),
            ("a part without a file", lambda m: m["parts"][0].pop("file")),
            ("not done", lambda m: m.update(done=False)),
            ("done as text", lambda m: m.update(done="yes")),
            ("no facts", lambda m: m.update(facts={})),
            ("facts that are a list", lambda m: m.update(facts=[])),
            ("no settings", lambda m: m.update(settings={})),
            ("settings that are none", lambda m: m.update(settings=None)),
            ("other settings", lambda m: m["settings"].update(input=[], rows="x", values="log1p", recvae="9")),
            ("more", lambda m: m.update(more=1)),
        ]
        made += [self._manifest(name, change) for name, change in changes]
        made += [self._without_manifest, self._unsealed]
        return made + [self._manifest(f"a part called {name!r}", self._called(name)) for name in PATHS]

    def _without_manifest(self, random: Random) -> Mutant:
        original, files, _ = self.choose(random)
        del files[self.within + MANIFEST]
        return Mutant(f"{original}: no manifest", files, False)

    def _unsealed(self, random: Random) -> Mutant:
        original, files, manifest = self.choose(random)
        manifest["done"] = not manifest["done"]
        raw = json.dumps(manifest).encode()
        return Mutant(f"{original}: a checksum of others", files | {self.within + MANIFEST: raw}, False)

    def _called(self, name: str) -> Any:
        return lambda manifest: manifest["parts"][0].update(file=name)

    def _text(self, name: str, text: bytes) -> Any:
        def make(random: Random) -> Mutant:
            original, files, _ = self.choose(random)
            return Mutant(f"{original}: manifest is {name}", files | {self.within + MANIFEST: text}, False)

        return make

    def _manifest(self, name: str, change: Any) -> Any:
        def make(random: Random) -> Mutant:
            original, files, manifest = self.choose(random)
            if manifest["parts"] or not name.startswith("a part"):
                change(manifest)
            return Mutant(f"{original}: {name}", files | {self.within + MANIFEST: manifest_bytes(manifest)}, True)

        return make

    def mutant(self, random: Random) -> Mutant:
        original, files, manifest = self.choose(random)
        how = str(random.choice(["manifest", "content", "both", "bytes", "missing"], p=[0.35, 0.42, 0.08, 0.1, 0.05]))
        said = []
        names = sorted(name for name in files if name != self.within + MANIFEST and name.startswith(self.within))
        if how in ("content", "both") and names:
            name = str(random.choice(names))
            files[name], what = self.change_content(random, name, files[name], files)
            said.append(f"{name}: {what}")
        if how in ("manifest", "both"):
            if random.random() < 0.15 and manifest["parts"]:
                part = manifest["parts"][int(random.integers(len(manifest["parts"])))]
                part["file"] = str(random.choice(PATHS + [each["file"] for each in manifest["parts"]]))
                said.append(f"a part called {part['file']!r:.40}")
            else:
                manifest, what = change_tree(random, manifest)
                said.append(what)
            if how == "manifest":
                files[self.within + MANIFEST] = manifest_bytes(manifest)
                return Mutant(f"{original}: {'; '.join(said)}", files, True)
        if how == "bytes":
            name = str(random.choice([*names, self.within + MANIFEST]))
            files[name], what = change_bytes(random, files[name])
            return Mutant(f"{original}: {name}: {what}", files, False)
        if how == "missing" and names:
            name = str(random.choice(names))
            del files[name]
            return Mutant(f"{original}: {name} is missing", files, True)
        return Mutant(f"{original}: {'; '.join(said)}", sealed(files, manifest, self.within), True)

    def change_content(self, random: Random, name: str, content: bytes, files: Files) -> tuple[bytes, str]:
        """Another content of a file, which is sealed afterwards."""
        return change_bytes(random, content)

    def judge(self, mutant: Mutant, folder: Path) -> str:
        write_files(folder, OUTSIDE)
        here = write_files(folder / "here", mutant.content)
        original = mutant.what.partition(":")[0]
        try:
            return self.judge_folder(original, here)
        finally:
            shutil.rmtree(here, ignore_errors=True)
            left = {name: content for name, content in read_files(folder).items() if not name.startswith("made")}
            if left != OUTSIDE:
                raise WrongError(f"something outside was changed; {sorted(left)}")

    def judge_folder(self, original: str, here: Path) -> str:
        """As `Kind.judge`, of a folder."""
        raise NotImplementedError
