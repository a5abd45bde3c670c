"""Job files: what they may say, and that anything else is refused in one line."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from forecast.jobs import Dates, load_job
from forecast.schema import InputError

ROOT = Path(__file__).parents[1]
DATES = "[dates]\nlatest = true\n"
TRIGGER = '[[triggers]]\nname = "t"\n'


@pytest.fixture
def read(tmp_path):
    def load(text: str):
        path = tmp_path / "job.toml"
        path.write_text(text, encoding="utf-8")
        return load_job(path)

    return load


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_jobs_are_sound(path):
    assert load_job(path).title


def test_defaults_are_all_worldviews_at_their_own_odds_and_no_output(read):
    job = read(DATES)
    assert job.worldviews == [] and job.odds == ["own"] and job.outputs.folder is None
    assert job.gates.failed == "hold" and job.dates.chain == 13 and job.triggers == []


def test_every_table_is_read(read):
    job = read(
        'worldviews = ["neutral"]\nodds = ["own", "rapid"]\nseed = 3\n'
        '[dates]\non = [2025-06-30]\nevery = "week"\nsince = 2025-07-01\nuntil = 2025-12-31\nchain = 4\n'
        "[sampler]\nislands = 4\n[gates]\nfailed = 'leave out'\ness = 500\nweight_se = 0.01\n"
        "[outputs]\nfolder = 'out'\nhub = true\nteam = 'us'\nsamples = 10\n"
        f'{TRIGGER}milestone = "W_2"\nby = 2028-01-01\nabove = 0.5\n'
    )
    assert job.dates.on == [dt.date(2025, 6, 30)] and job.sampler == {"islands": 4}
    assert job.triggers[0].by == dt.date(2028, 1, 1) and job.gates.ess == 500


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "dates: missing"),
        ("[dates]", "names no day; give on, every with since, or latest = true"),
        ('[dates]\nevery = "week"', "every and since go together"),
        (f"{DATES}until = 2026-01-01", "until goes with every"),
        (f"{DATES}chain = 0", "dates.chain: should be greater than or equal to 1, not 0"),
        (f"{DATES}lattest = true", "dates.lattest: unknown key; did you mean 'latest'?"),
        (f"worldview = []\n{DATES}", "worldview: unknown key; did you mean 'worldviews'?"),
        (f'worldviews = ["a", "a"]\n{DATES}', "worldviews: a stands twice; keep one"),
        (f"worldviews = 'a'\n{DATES}", "worldviews: should be a valid list, not 'a'"),
        (f"seed = true\n{DATES}", "seed: should be a valid integer, not True"),
        (f"seed = '1'\n{DATES}", "seed: should be a valid integer, not '1'"),
        ('[dates]\non = ["2026-01-01"]', "dates.on.0: should be a valid date, not '2026-01-01'"),
        (
            f"{DATES}[gates]\nfailed = 'publish'",
            "gates.failed: should be 'hold' or 'leave out', not 'publish'",
        ),
        (f"{DATES}[gates]\nweight_se = nan", "gates.weight_se: should be a finite number, not nan"),
        (f"{DATES}[outputs]\nfolder = 'x'", "a folder goes with history, hub, report or scenarios"),
        (
            f"odds = ['neutral']\n{DATES}[outputs]\nfolder = 'x'\nreport = true",
            "a report and scenarios are of worldviews at their own; add 'own'",
        ),
        (f"{DATES}[outputs]\nhub = true", "a folder goes with history, hub, report or scenarios"),
        (f"{DATES}[outputs]\nfolder = 'x'\nhub = true\nteam = 'a b'", "outputs.team"),
        (f'{DATES}{TRIGGER}dynamic = "amdahl"', "give one of above, below, up and down"),
        (
            f'{DATES}{TRIGGER}dynamic = "amdahl"\nup = 0.1\ndown = 0.1',
            "give one of above, below, up and down",
        ),
        (f'{DATES}{TRIGGER}milestone = "W_2"\nup = 0.1', "give milestone and by, or dynamic"),
        (f"{DATES}{TRIGGER}up = 0.1", "give milestone and by, or dynamic"),
        (
            f'{DATES}{TRIGGER}dynamic = "amdahl"\nabove = 50',
            "triggers.0.above: should be less than 1, not 50",
        ),
        (f'{DATES}{TRIGGER}dynamics = "amdahl"', "triggers.0.dynamics: unknown key; did you mean 'dynamic'?"),
        ("a = ", "not TOML"),
    ],
)
def test_what_a_job_may_not_say_is_refused_in_one_line(read, text, said):
    with pytest.raises(InputError) as caught:
        read(text)
    line = str(caught.value)
    assert said in line and "job.toml: " in line and "\n" not in line


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: No such file"):
        load_job(tmp_path / "none.toml")


def test_a_job_does_not_change_after_it_was_read():
    with pytest.raises(ValueError, match="frozen"):
        Dates(latest=True).latest = False
