"""Other packages, each in a separate environment, because their pinned versions conflict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent
REQUIREMENTS = {
    # RecBole does not run with numpy 2, nor with what needs it
    "RecBole MultiVAE": ("recbole_multivae.py", ["recbole==1.2.1", "torch", "numpy<2", "scipy<1.14", "pandas<2.3"]),
    "Cornac VAECF": ("cornac_vaecf.py", ["cornac==2.2.2", "torch"]),
    "irspack iALS": ("irspack_ials.py", ["irspack==0.5.2"]),
}


def environment(peer: str, home: Path) -> Path | str:
    """The interpreter of a peer's environment under `home`, made if missing; or the reason why it cannot be made."""
    script, requirements = REQUIREMENTS[peer]
    folder = home.resolve() / script.removesuffix(".py")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    constraints = Path(__file__).parents[3] / "constraints.txt"
    torch = [line for line in constraints.read_text(encoding="utf-8").splitlines() if line.startswith("torch==")]
    wanted = [torch[0] if name == "torch" and torch else name for name in requirements]
    done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], capture_output=True, text=True)
    if done.returncode:
        return ["cannot be installed", *done.stderr.strip().splitlines()][-1]
    return python
