"""What every test may rely on: few torch threads, no network, and the shared data where they exist."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

# The user's own cache is never touched.
os.environ["MMPT_CACHE"] = tempfile.mkdtemp(prefix="mmpt-cache-")
atexit.register(shutil.rmtree, os.environ["MMPT_CACHE"], ignore_errors=True)

# A shell starts background jobs with SIGINT ignored, which the programs that tests interrupt would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

THREADS = os.environ.get("MMPT_TEST_THREADS", "1")
# Before any library reads them. Programs that tests start inherit these.
os.environ.update(
    OMP_NUM_THREADS=THREADS,
    OMP_WAIT_POLICY="PASSIVE",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="disabled",
    WANDB_ERROR_REPORTING="false",
    MPLBACKEND="Agg",
)
for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_RUN_ID", "MMPT_TRACEBACK", "HYDRA_FULL_ERROR"):
    os.environ.pop(name, None)

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: E402, F401

ROOT = Path(__file__).resolve().parents[1]
LONG = ("run", "caching", "readme", "sweep", "disk", "resume", "signals")  # files of tests that take long


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: of two workers, none is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def superglue() -> Path:
    """Real SuperGLUE data in the official layout; they are not part of the repository."""
    folder = ROOT.parent / "shared" / "data" / "superglue"
    if not folder.is_dir():
        pytest.skip(f"no SuperGLUE data at {folder}")
    return folder


@pytest.fixture(autouse=True)
def few_threads() -> None:
    """Tests share few cores; a test that doesn't import torch doesn't pay for it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != int(THREADS):
        torch.set_num_threads(int(THREADS))
