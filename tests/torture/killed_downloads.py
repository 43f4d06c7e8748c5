"""A download that is killed leaves nothing that the next one does not remove, and nothing that is not whole."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.torture import bad_server
from tests.torture.downloads import Downloads
from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLED = """
import json, os, random, shutil, signal, sys, time
from itertools import count
from pathlib import Path
import numpy as np, pooch, requests
from spatialwhisperer import settings
from tests.torture.downloads import Downloads

url, place, data_seed, how, seed = sys.argv[1], Path(sys.argv[2]) / "data", int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
os.fsync = lambda _: None
settings.offline = settings.verbose = False
data = Downloads(np.random.default_rng(data_seed))
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir", "shutil.rmtree", "socket.connect"}

def die_at(step):
    seen = [0]
    def count_events(event, _):
        if event in EVENTS:
            seen[0] += 1
            if seen[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count_events)

# what a first call imports is no event of the trial
data.get(url, place)
rng = random.Random(seed)
for n in count(1):
    shutil.rmtree(place)
    child = os.fork()
    if child == 0:
        if how == "events":
            die_at(n)
        data.get(url, place)
        os._exit(0)
    if how == "times":
        time.sleep(rng.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if how == "events" and not os.WIFSIGNALED(status):
        break
    try:
        data.get(url, place)
        wrong = data.wrong(place, whole=True)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    print(json.dumps(["the next call completes it", wrong]), flush=True)
"""


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Half of them at each event of the file system, half at random times of a slow server."""
    seed = int(rng.integers(2**31))
    files = Downloads(np.random.default_rng(seed)).files
    events = 0
    with bad_server.serving(files, [bad_server.right]) as url:
        for trial in islice(_killed(url, seed, "events", rng), n - n // 2):
            events += 1
            yield trial
    with bad_server.serving(files, [bad_server.slow_but_right]) as url:
        yield from islice(_killed(url, seed, "times", rng), n - events)


def _killed(url: str, data_seed: int, how: str, rng: np.random.Generator) -> Iterator[Trial]:
    seed = str(int(rng.integers(2**31)))
    with tempfile.TemporaryDirectory() as place:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, url, place, str(data_seed), how, seed],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            step = 0
            for step, line in enumerate(process.stdout or (), start=1):
                ended, wrong = json.loads(line)
                yield Trial(ended, wrong and f"{how}, step {step}: {wrong}")
            said = process.communicate()[1]
            if process.returncode or step < 20:
                yield Trial("no end", f"{how}: {step} steps, then {said[-300:]}")
        finally:
            process.kill()
            process.communicate()


CAMPAIGN = Campaign("downloads killed", trials, bounded=40, long=160, posix=True)
