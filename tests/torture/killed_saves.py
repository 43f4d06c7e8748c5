"""A process that is killed while it saves a model leaves the old one or the new one, at every event of the file system."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING

from tests.torture.frame import Campaign, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

WRITER = """
import json, os, random, signal, sys, time
from dataclasses import replace
from itertools import count
from pathlib import Path
import numpy as np
from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._storage import folders

place, what, way, how, seed = Path(sys.argv[1]) / "m", *sys.argv[2:5], int(sys.argv[5])
# a process that dies loses nothing that was written; only a machine does
os.fsync = lambda _: None
if way == "moves":
    folders._renameat2 = lambda: None

if what == "model":
    from spatialwhisperer import settings
    from spatialwhisperer.models import Whisperer, store
    settings.verbose = False
    model = Whisperer.load(store.embedded_folder())

    def save(n):
        model.update(card=replace(model.config.card, name=f"v{n}"))
        model.image_mean.fill_(n)
        model.save(place)

    def version():
        read = Whisperer.load(place)
        n = int(read.image_mean[0])
        return n if read.config.card.name == f"v{n}" and (read.image_mean == n).all() else None
else:
    def save(n):
        inner = Artifact("part", {"n": n}, {"b": np.full(50, n)}, files={"run.txt": b"%d" % n})
        Artifact("thing", {"n": n}, {"a": np.full(100, n, np.float32)}, {"inner": inner}).write(place)

    def version():
        read = Artifact.read(place, "thing")
        n, inside = read.config["n"], read.parts["inner"]
        same = inside.config["n"] == n and (read.tensors["a"] == n).all() and (inside.tensors["b"] == n).all()
        return n if same and inside.files["run.txt"] == b"%d" % n else None

EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir", "shutil.rmtree"}

def die_at(step):
    seen = [0]
    def count_events(event, _):
        if event in EVENTS:
            seen[0] += 1
            if seen[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count_events)

save(0)
version()
rng = random.Random(seed)
for n in count(1):
    child = os.fork()
    if child == 0:
        if how == "events":
            die_at(n)
            save(n)
            os._exit(0)
        while True:
            save(n)
    if how == "times":
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    # its last event is behind it: every one was tried
    if how == "events" and not os.WIFSIGNALED(status):
        break
    try:
        found = version()
        known = (n - 1, n) if how == "events" else range(n + 1)
        ended = "old model" if found is not None and found < n else "new model"
        wrong = "" if found in known else f"a mix, or another one: {found}"
    except BaseException as error:
        ended, wrong = "no model", f"{type(error).__name__}: {error}"
    save(n)
    left = sorted(p.name for p in place.parent.iterdir())
    print(json.dumps([ended, wrong or ("" if left == ["m"] else f"left {left}")]), flush=True)
"""
WAYS = ("exchange", "moves")


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """At each event of a small artifact and of a model, in both ways of replacing; what is left of ``n`` at random times."""
    events = [_killed(what, way, "events", rng) for what in ("artifact", "model") for way in WAYS]
    times = [_killed("artifact", way, "times", rng) for way in WAYS]
    yield from islice(chain(*events, (next(kills) for kills in cycle(times))), n)


def _killed(what: str, way: str, how: str, rng: np.random.Generator) -> Iterator[Trial]:
    seed = str(int(rng.integers(2**31)))
    with tempfile.TemporaryDirectory() as place:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, place, what, way, how, seed],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            step = 0
            for step, line in enumerate(writer.stdout or (), start=1):
                ended, wrong = json.loads(line)
                yield Trial(ended, wrong and f"{what}, {way}, {how}, step {step}: {wrong}")
            said = writer.communicate()[1]
            if writer.returncode or step < 30:
                yield Trial("no end", f"{what}, {way}, {how}: {step} steps, then {said[-300:]}")
        finally:
            writer.kill()
            writer.communicate()


CAMPAIGN = Campaign("model.save, SIGKILL at each file-system event", trials, bounded=80, long=600, posix=True)
