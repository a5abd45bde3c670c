"""Malformed prior files: one plain line each that names file, key and mend."""

from pathlib import Path

import pytest

from forecast.schema import InputError
from forecast.worldviews import check, load_worldview, load_worldviews

GOOD = """title = "A view"

[odds]
explosive = 0.25
decaying = 0.25
amdahl = 0.25
expanding_pie = 0.25
reason = "even"

[assumptions.f26]
dist = "beta"
alpha = 9.0
beta = 11.0
reason = "a reason"
source = "a source"
informed = 2025-12-31

[assumptions.tau]
ci80 = [0.2, 0.6]
lower = 0
reason = "another reason"
source = "another source"
informed = 2026-01-31
"""
WHY = 'reason = "a"\nsource = "b"\ninformed = 2026-01-31\n'


def swap(old: str, new: str) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new, 1).encode()


def add(name: str, body: str) -> bytes:
    return f"{GOOD}[assumptions.{name}]\n{body}\n{WHY}".encode()


BETA = 'dist = "beta"\nalpha = 9.0\nbeta = 11.0\n'
BAD_FILES = {
    # name: content, key, mend
    "empty": (b"", "the file is empty", "start it with a title"),
    "only a comment": (b"# nothing yet\n", "the file is empty", "start it with a title"),
    "not UTF-8": (swap("a reason", "reason").replace(b"even", b"\xe9ven"), "line 8", "save the file"),
    "syntax": (swap("alpha = 9.0", "alpha 9.0"), "at line 12", "mend the syntax"),
    "key twice": (swap("alpha = 9.0", "alpha = 9.0\nalpha = 9.0"), "at line 13", "mend the syntax"),
    "impossible date": (swap("2025-12-31", "2025-02-30"), "at line 16", "mend the syntax"),
    "deep nesting": (b"a = " + b"[" * 5000 + b"]" * 5000, "not TOML", "mend the syntax"),
    "endless number": (swap("9.0", "9" * 5000), "not TOML", "mend the syntax"),
    "top-level key": (swap("[odds]", "colour = 3\n[odds]"), "colour", "choose from title, odds, assumptions"),
    "misspelt table": (
        GOOD.replace("[assumptions.", "[assumption.").encode(),
        "assumption",
        "'assumptions'?",
    ),
    "no title": (swap('title = "A view"\n', ""), "title: missing", 'add title = "..."'),
    "title not text": (swap('"A view"', "3"), "title: missing or not text", 'add title = "..."'),
    "no odds": (b'title = "A view"\n', "odds: missing", "write [odds]"),
    "odds not a table": (
        b'title = "A view"\nodds = 3\n',
        "odds: missing, empty or not a table",
        "write [odds]",
    ),
    "unknown dynamic": (swap("amdahl =", "amdal ="), "odds.amdal", "did you mean 'amdahl'?"),
    "sum of odds": (swap("amdahl = 0.25", "amdahl = 0.2"), "odds: they sum to 0.95", "make it 1"),
    "missing dynamic": (swap("amdahl = 0.25\n", ""), "odds: they sum to 0.75", "make it 1"),
    "negative odds": (
        swap("amdahl = 0.25", "amdahl = -0.25"),
        "odds.amdahl",
        "number from 0 to 1, not -0.25",
    ),
    "NaN odds": (swap("amdahl = 0.25", "amdahl = nan"), "odds.amdahl", "number from 0 to 1, not nan"),
    "infinite odds": (swap("amdahl = 0.25", "amdahl = inf"), "odds.amdahl", "number from 0 to 1, not inf"),
    "odds as text": (swap("amdahl = 0.25", 'amdahl = "1/4"'), "odds.amdahl", "number from 0 to 1, not '1/4'"),
    "odds true": (swap("amdahl = 0.25", "amdahl = true"), "odds.amdahl", "number from 0 to 1, not True"),
    "no reason for odds": (swap('reason = "even"\n', ""), "odds.reason", 'add reason = "..."'),
    "assumptions not a table": (
        b"assumptions = 3\n" + GOOD.partition("[ass")[0].encode(),
        "assumptions",
        "table",
    ),
    "unknown parameter": (swap("assumptions.tau", "assumptions.tua"), "'tua'", "did you mean 'tau'?"),
    "unlike any parameter": (swap("assumptions.tau", "assumptions.qqqqqq"), "'qqqqqq'", "choose from g0, pL"),
    "owner missing": (add("room", BETA), "'room'", "choose from explosive.room, decaying.room"),
    "owner only": (add("decaying", BETA), "'decaying'", "choose from decaying.r, decaying.room"),
    "unknown own parameter": (
        add("decaying.rooom", BETA),
        "'decaying.rooom'",
        "did you mean 'decaying.room'?",
    ),
    "another's parameter": (add("decaying.phi", BETA), "assumptions.decaying.phi", "did you mean"),
    "innovation": (add('"deviation_2023.5"', BETA), "unknown parameter", "did you mean 'deviation_sd'?"),
    "score": (add("gso_opt1.place", BETA), "assumptions.gso_opt1.place", "by definition; remove the table"),
    "line break in a name": (add(r'"ta\nu"', BETA), "unknown parameter 'ta u'", "did you mean 'tau'?"),
    "quoted and nested": (
        add('"amdahl.phi"', BETA) + b"[assumptions.amdahl.phi]\n" + (BETA + WHY).encode(),
        "assumptions.amdahl.phi",
        "keep one",
    ),
    "line not a table": (
        b"assumptions.f26 = 3\n" + GOOD.partition("[ass")[0].encode(),
        "assumptions.f26",
        "table",
    ),
    "unknown dist": (swap('"beta"', '"betta"'), "assumptions.f26.dist", "did you mean 'beta'?"),
    "dist not text": (swap('"beta"', "3"), "assumptions.f26.dist", "choose from normal"),
    "dist empty": (swap('"beta"', '""'), "assumptions.f26.dist", "choose from normal"),
    "unknown field": (swap("alpha", "alhpa"), "assumptions.f26.alhpa", "did you mean 'alpha'?"),
    "field of another dist": (
        swap("beta = 11.0", "beta = 11.0\nsd = 1"),
        "assumptions.f26.sd",
        "choose from dist",
    ),
    "misspelt reason": (swap('reason = "a reason"', 'raeson = "a"'), "f26.raeson", "did you mean 'reason'?"),
    "missing field": (swap("alpha = 9.0\n", ""), "assumptions.f26.alpha", "needs a finite number here"),
    "number as text": (
        swap("9.0", '"9.0"'),
        "assumptions.f26.alpha",
        "needs a finite number here, got '9.0'",
    ),
    "NaN": (swap("9.0", "nan"), "assumptions.f26.alpha", "needs a finite number here, got nan"),
    "inf": (swap("9.0", "inf"), "assumptions.f26.alpha", "needs a finite number here, got inf"),
    "huge": (swap("9.0", "1" + "0" * 400), "assumptions.f26.alpha", "needs a finite number here"),
    "condition": (swap("9.0", "-9.0"), "assumptions.f26", "at least 0.1"),
    "no reason": (swap('reason = "a reason"\n', ""), "assumptions.f26.reason", 'add reason = "..."'),
    "blank reason": (swap('"a reason"', '"  "'), "assumptions.f26.reason", 'add reason = "..."'),
    "no source": (swap('source = "a source"\n', ""), "assumptions.f26.source", 'add source = "..."'),
    "no date": (swap("informed = 2025-12-31\n", ""), "assumptions.f26.informed", "add informed = 2025-12-31"),
    "date in quotes": (swap("2025-12-31", '"2025-12-31"'), "assumptions.f26.informed", "without quotes"),
    "date with time": (swap("2025-12-31", "2025-12-31T10:00:00"), "assumptions.f26.informed", "add informed"),
    "dist and ci80": (swap("ci80", 'dist = "beta"\nci80'), "assumptions.tau: both", "give one"),
    "neither": (swap("ci80 = [0.2, 0.6]\n", ""), "assumptions.tau: neither", "give one"),
    "ci80 reversed": (swap("[0.2, 0.6]", "[0.6, 0.2]"), "assumptions.tau.ci80", "give two rising numbers"),
    "ci80 equal": (swap("[0.2, 0.6]", "[0.2, 0.2]"), "assumptions.tau.ci80", "give two rising numbers"),
    "ci80 of three": (
        swap("[0.2, 0.6]", "[0.2, 0.4, 0.6]"),
        "assumptions.tau.ci80",
        "give two rising numbers",
    ),
    "ci80 not a list": (swap("[0.2, 0.6]", "0.2"), "assumptions.tau.ci80", "give two rising numbers"),
    "ci80 text": (swap("[0.2, 0.6]", '[0.2, "0.6"]'), "assumptions.tau.ci80", "give two rising numbers"),
    "ci80 NaN": (swap("[0.2, 0.6]", "[0.2, nan]"), "assumptions.tau.ci80", "give two rising numbers"),
    "ci80 at the bound": (
        swap("[0.2, 0.6]", "[0, 0.6]"),
        "assumptions.tau.ci80",
        "strictly within its bounds",
    ),
    "ci80 above 1": (
        add("sigma", "ci80 = [0.2, 1.2]\nlower = 0\nupper = 1"),
        "assumptions.sigma.ci80",
        "strictly within its bounds",
    ),
    "ci80 bound": (swap("lower = 0", "lower = 0.1"), "assumptions.tau.lower", "use dist for others"),
    "ci80 upper alone": (swap("lower = 0", "upper = 1"), "assumptions.tau.upper", "use dist for others"),
    "ci80 bound as text": (swap("lower = 0", 'lower = "0"'), "assumptions.tau.lower", "use dist for others"),
    "ci80 unknown field": (swap("lower = 0", "lowr = 0"), "assumptions.tau.lowr", "did you mean 'lower'?"),
    "positive made normal": (swap("lower = 0\n", ""), "assumptions.tau", "can be negative; use lognormal"),
    "positive made partly negative": (
        add("v", 'dist = "uniform"\nlower = -0.1\nupper = 1'),
        "assumptions.v: uniform(lower -0.1, upper 1)",
        "can be negative; use lognormal",
    ),
    "far ceiling made normal": (
        add("explosive.room", 'dist = "normal"\nmean = 20\nsd = 5'),
        "assumptions.explosive.room",
        "can be negative; use lognormal",
    ),
    "share made log-normal": (
        add("amdahl.phi", 'dist = "lognormal"\nmedian = 0.2\nsd = 0.3'),
        "assumptions.amdahl.phi",
        "use beta, logitnormal or a uniform within",
    ),
    "share above 1": (
        add("sigma", 'dist = "uniform"\nlower = 0\nupper = 1.2'),
        "assumptions.sigma",
        "use beta, logitnormal or a uniform within",
    ),
    "pK not uniform": (
        add("pK", 'dist = "beta"\nalpha = 2\nbeta = 2'),
        "assumptions.pK",
        'only dist = "uniform"',
    ),
    "pK too high": (
        add("pK", 'dist = "uniform"\nlower = 0.4\nupper = 1'),
        "assumptions.pK",
        "its lower bound 0.4 must lie below 0.4",
    ),
    "pL too high": (
        add("pL", 'dist = "uniform"\nlower = 0.5\nupper = 1.1'),
        "assumptions.pK",
        "its lower bound 0 must lie below -0.1",
    ),
    "pL unbounded": (
        add("pL", 'dist = "lognormal"\nmedian = 0.5\nsd = 0.5'),
        "assumptions.pK",
        "its lower bound 0 must lie below -1.34",
    ),
}


def put(directory: Path, content: bytes) -> Path:
    path = directory / "priors" / "rapid.toml"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_the_good_file_is_good(tmp_path):
    assert set(load_worldview(put(tmp_path, GOOD.encode())).lines) == {"f26", "tau"}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_gives_one_plain_line(tmp_path, name):
    content, key, mend = BAD_FILES[name]
    path = put(tmp_path, content)
    with pytest.raises(InputError) as error:
        load_worldview(path)
    message = str(error.value)
    assert message.startswith("priors/rapid.toml: ")
    assert key in message and mend in message
    assert len(message.splitlines()) == 1 and len(message) < 400
    assert str(tmp_path) not in message
    lines = check(path.parent)
    assert lines and message.startswith(lines[0])


def test_every_problem_is_found_and_counted(tmp_path):
    content = (
        swap("amdahl = 0.25", "amdahl = 0.2").replace(b'"beta"', b'"betta"').replace(b"[0.2, 0.6]", b"[1]")
    )
    path = put(tmp_path, content.replace(b'source = "a source"\n', b""))
    lines = check(path.parent)
    assert [line.split(":")[1].strip() for line in lines] == [
        "odds",
        "assumptions.f26.dist",
        "assumptions.f26.source",
        "assumptions.tau.ci80",
    ]
    with pytest.raises(InputError, match=r"they sum to 0\.95; make it 1 \(and 3 more\)$"):
        load_worldviews(path.parent)


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(
        InputError, match=r"none\.toml: No such file or directory; give the path of a TOML file"
    ):
        load_worldview(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"folder\.toml: Is a directory; give the path"):
        load_worldviews(tmp_path)
