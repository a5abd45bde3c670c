"""The notebooks run from top to bottom, small: fewer draws, fewer rows, and a gate that lets that pass."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = """
import sys
sys.path.insert(0, {tests!r})
import made
batch.GATE, batch.ATTEMPTS = made.LAX, 1
settings = inference.Settings(islands=4, chains=32, steps=2, final_sweeps=4)
as_of = "2025-01-31"
store = Path({store!r})
"""
"""Put after the cell of parameters."""


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """One store for all, so that what one notebook fitted the next one reads."""
    return tmp_path_factory.mktemp("store")


def small(path: Path, store: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    places = [i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", ())]
    for i in places:
        notebook.cells.insert(
            i + 1, nbformat.v4.new_code_cell(SMALL.format(store=str(store), tests=str(ROOT / "tests")))
        )
    return notebook


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, store):
    notebook = small(path, store)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    shown = [out for c in notebook.cells if c.cell_type == "code" for out in c.outputs]
    assert any("text/html" in out.get("data", {}) or "image/svg+xml" in out.get("data", {}) for out in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_results_and_defines_nothing_to_reuse(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            source = "".join(cell["source"])
            # A function of a registry is the subject of its notebook; any other belongs into the package.
            assert "class " not in source and source.count("def ") == source.count("\n@")


def test_there_are_six():
    assert [p.stem[0] for p in NOTEBOOKS] == list("123456")
