"""Observation models: what each indicator would show if a path were true.

An indicator is one function from a `Reading` (a path read off at the rows' dates) and its parameters
to a law of its rows.  It names the rows it takes, and its parameters carry their priors.  Category 1
is broad capability, 2 the ladder of AI R&D benchmarks, 3 the signs inside companies.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import numpy as np
import pandas as pd

from forecast import observation as obs
from forecast.laws import Counted, Law, Observed, Reported, Shortfall, SplitShortfall
from forecast.observation import Reading, indicator, param
from forecast.priors import Array, HalfNormal, LogNormal, Normal, array_module

INDICATORS = obs.INDICATORS
"""Registry of observation models by name, filled by this room."""
EARLY_TOOLS_UNTIL = 2025.5
"""Trials observed up to this date used tools early enough to cost time."""


# Category 1: broad capability -----------------------------------------------------------------------

_EPOCH = dt.date(2025, 12, 31)


@indicator("metr_th50_v11", "metr_th50_v10", family="long tasks", prepare=obs.minutes, flagship_rows=True)
def time_horizon(
    read: Reading,
    y: Observed,
    *,
    h0: Annotated[
        Array,
        param(
            Normal(float(np.log(4.0)), 0.7),
            "ln min",
            "calibration",
            "ln horizon at e = 0",
            "METR: GPT-4, March 2023, about four minutes",
        ),
    ],
    h1: Annotated[Array, param(LogNormal(0.6, 0.5), "1/nat", "calibration", "growth of ln horizon per nat")],
    h2: Annotated[Array, param(Normal(0.02, 0.04), "1/nat^2", "measurement", "curvature of ln horizon")],
    tau_h: Annotated[Array, param(HalfNormal(0.35), "ln min", "calibration", "noise beyond the interval")],
    suite_10: Annotated[
        Array,
        param(Normal(0.0, 0.3), "ln min", "calibration", "offset of suite TH1.0 against TH1.1"),
    ],
) -> Law:
    """Ln minutes = h0 + h1 e + h2 e^2/2 (`log_horizon`), two-piece error, right-censored at 960 minutes."""
    older = (read.rows["indicator_id"] == "metr_th50_v10").to_numpy(float)
    mu, slope = obs.log_horizon(read.capability, h0, h1, h2)
    low, high = ((se**2 + tau_h**2) ** 0.5 for se in (y.se_low, y.se_high))
    return SplitShortfall(mu + suite_10 * older, low, high, slope * read.shortfall)


@indicator("epoch_eci", family="broad index", prepare=obs.points, flagship_rows=True)
def capability_index(
    read: Reading,
    y: Observed,
    *,
    c0: Annotated[
        Array,
        param(Normal(126.0, 3.0), "points", "calibration", "index at e = 0", "Epoch AI", _EPOCH),
    ],
    c1: Annotated[
        Array,
        param(LogNormal(5.5, 0.3), "points/nat", "calibration", "index points per nat", "Epoch AI", _EPOCH),
    ],
    J: Annotated[Array, param(HalfNormal(6.0), "points", "inputs", "one-off jump of reasoning models")],
    eci_sd: Annotated[Array, param(LogNormal(1.5, 0.3), "points", "calibration", "noise of the index")],
) -> Law:
    """Points = c0 + c1 e + J reasoning; the shortfall carries the long lower tail."""
    reasoning = (read.rows["reasoning"] == "yes").to_numpy(float)
    return Shortfall(
        c0 + c1 * read.capability + J * reasoning, eci_sd + np.zeros(len(y.low)), c1 * read.shortfall
    )


# Category 2, and the messy tasks of category 1: scores in percent -----------------------------------

BENCHMARK_SD = float(np.hypot(1.0, 1.5))
"""Sd of a benchmark's place: 1.0 around its rung and 1.5 between benchmark transfer gaps, nats."""
MESSY_SD = 2.5
"""Sd of a messy-task benchmark's place around half automation, nats."""
_Slope = Annotated[
    Array, param(LogNormal(0.5, 0.5), "1/nat", "calibration", "rise of the logit score per nat")
]
_Spread = Annotated[Array, param(LogNormal(0.3, 0.6), "logit", "calibration", "noise beyond sampling error")]


def _benchmark(read: Reading, y: Observed, slope: Array, place: Array, spread: Array) -> Law:
    """Logit(y/u) = slope (e - place), an exponential shortfall, and sampling plus extra noise."""
    sd = (y.se_low**2 + spread**2) ** 0.5
    return Shortfall(slope * (read.capability - place), sd, slope * read.shortfall)


def rung_places(d50: Array, g2: Array, g3: Array, g4: Array) -> tuple[Array, Array, Array, Array]:
    """Deployed capability at which each rung is half automated, nats.

    The four rungs carry equal weight in the basket, so their mean is `d50`.
    """
    first = d50 - (3 * g2 + 2 * g3 + g4) / 4
    return first, first + g2, first + g2 + g3, first + g2 + g3 + g4


MESSY = {
    "rli_automation": "messy tasks",
    "the_agent_company": "messy tasks",
    "apex_agents": "messy tasks",
    "cl_bench": "new facts",
}
"""Benchmarks of category 1 scored in percent, with their family."""
ENGINEERING = ("swe_verified_epoch", "swe_pro", "terminal_bench_20_board", "terminal_bench_21", "gso_opt1")
"""Benchmarks of rung 1."""
EXPERIMENTS = ("mle_bench_board", "mle_bench_30", "paperbench_10", "core_bench_hard", "posttrainbench")
"""Benchmarks of rung 2."""
IDEATION, STRATEGY = ("ideation_benchmark",), ("strategy_benchmark",)
"""Benchmarks of rungs 3 and 4 once there are any; until then the gaps g3 and g4 carry their prior."""
RUNGS = {i: n for n, ids in enumerate((ENGINEERING, EXPERIMENTS, IDEATION, STRATEGY)) for i in ids}
"""Rung of each benchmark of the ladder, from 0."""


@indicator(*MESSY, family=MESSY, prepare=obs.scores, per_id=True, flagship_rows=True)
def messy_tasks(
    read: Reading,
    y: Observed,
    *,
    slope: _Slope,
    spread: _Spread,
    place: Annotated[Array, param(Normal(0.0, 1.0), "sd", "calibration", "place around half automation")],
) -> Law:
    """A benchmark of messy tasks or new facts, placed widely around half automation (d50)."""
    return _benchmark(read, y, slope, place, spread)


@indicator(
    *ENGINEERING,
    *EXPERIMENTS,
    *IDEATION,
    *STRATEGY,
    prepare=obs.scores,
    per_id=True,
    flagship_rows=True,
    family={i: ("engineering", "experiments", "ideation", "strategy")[n] for i, n in RUNGS.items()},
)
def ladder(
    read: Reading,
    y: Observed,
    *,
    slope: _Slope,
    spread: _Spread,
    place: Annotated[
        Array, param(Normal(0.0, 1.0), "sd", "calibration", "place around its rung's real work")
    ],
) -> Law:
    """A benchmark of a rung, placed around the rung's real work less the transfer gap."""
    return _benchmark(read, y, slope, place, spread)


# Category 3: signs inside companies -----------------------------------------------------------------


def _flag(read: Reading, company: str) -> np.ndarray:
    return (read.rows["company"] == company).to_numpy(float)


@indicator("uplift_rct_time", family="uplift, trials", prepare=obs.speed_up)
def uplift_trial(
    read: Reading,
    y: Observed,
    *,
    selection: Annotated[
        Array,
        param(
            HalfNormal(0.2),
            "nats",
            "measurement",
            "tasks and people that gain most stay out of trials",
            "METR: 30-50 % of developers withheld tasks",
            dt.date(2026, 2, 24),
        ),
    ],
    cost: Annotated[Array, param(HalfNormal(0.15), "nats", "measurement", "time that early tools cost")],
    programme_metr: Array,
) -> Law:
    """Ln speed-up ~ N(ln m - selection - cost of early tools, se)."""
    early = (read.rows["time"] <= EARLY_TOOLS_UNTIL).to_numpy(float)
    mu = read.at("log_m") - selection - cost * early + programme_metr
    return Reported(mu, (y.se_low + y.se_high) / 2, np.zeros(len(y.low)))


_REPORT_SD = 0.35


@indicator("staff_productivity", "card_productivity_median", family="uplift, self-report", prepare=obs.growth)
def reported_gain(
    read: Reading,
    y: Observed,
    *,
    hype_value: Array,
    hype_speed: Array,
    programme_anthropic: Array,
    respondents_anthropic: Array,
) -> Law:
    """Ln(1 + gain) ~ ln m - ln m(t0) + hype; the staff survey asks for value, the cards for speed."""
    survey = (read.rows["indicator_id"] == "staff_productivity").to_numpy(float)
    mu = read.at("log_m") - read.start("log_m") + programme_anthropic + respondents_anthropic * survey
    return Reported(
        mu + hype_value * survey + hype_speed * (1 - survey), np.full(len(y.low), _REPORT_SD), read.disclosed
    )


@indicator(
    "staff_uplift_factor",
    "metr_survey_speed",
    "metr_survey_value",
    family="uplift, self-report",
    prepare=obs.logs,
)
def reported_multiplier(
    read: Reading,
    y: Observed,
    *,
    hype_value: Array,
    hype_speed: Array,
    programme_anthropic: Array,
    programme_metr: Array,
    respondents_metr: Array,
) -> Law:
    """Ln multiplier ~ ln m - ln m(t0) + hype for speed or value."""
    value = (read.rows["indicator_id"] == "metr_survey_value").to_numpy(float)
    survey = read.rows["indicator_id"].str.startswith("metr_survey").to_numpy(float)
    anthropic = _flag(read, "Anthropic")
    mu = read.at("log_m") - read.start("log_m") + hype_value * value + hype_speed * (1 - value)
    mu = mu + programme_anthropic * anthropic + programme_metr * (1 - anthropic) + respondents_metr * survey
    return Reported(mu, np.full(len(y.low), _REPORT_SD), read.disclosed)


@indicator("ai_code_share", family="delegated work", prepare=obs.shares)
def code_share(
    read: Reading,
    y: Observed,
    *,
    code_anthropic: Annotated[
        Array,
        param(Normal(1.0, 1.0), "logit", "measurement", "written code against automated tasks, Anthropic"),
    ],
    code_google: Annotated[
        Array,
        param(Normal(1.0, 1.0), "logit", "measurement", "written code against automated tasks, Google"),
    ],
    code_microsoft: Annotated[
        Array,
        param(Normal(1.0, 1.0), "logit", "measurement", "written code against automated tasks, Microsoft"),
    ],
) -> Law:
    """Logit share of new code = logit F + the company's offset."""
    offset = sum(
        _flag(read, c) * x
        for c, x in (("Anthropic", code_anthropic), ("Google", code_google), ("Microsoft", code_microsoft))
    )
    return Reported(read.at("logit_F") + offset, np.full(len(y.low), 0.4), read.disclosed)


@indicator("staff_work_share", family="delegated work", prepare=obs.shares)
def work_share(
    read: Reading,
    y: Observed,
    *,
    use_offset: Annotated[
        Array,
        param(Normal(0.7, 0.7), "logit", "measurement", "work in which AI is used against automated tasks"),
    ],
) -> Law:
    """Logit share of work with AI = logit F + offset."""
    return Reported(read.at("logit_F") + use_offset, np.full(len(y.low), 0.4), read.disclosed)


@indicator("code_per_engineer", family="delegated work", prepare=obs.logs)
def code_output(
    read: Reading,
    y: Observed,
    *,
    kappa: Annotated[
        Array,
        param(Normal(1.8, 0.5), "-", "measurement", "ln code per nat of researcher output"),
    ],
    code_level: Annotated[
        Array, param(Normal(0.0, 0.3), "nats", "calibration", "level of ln code per engineer")
    ],
) -> Law:
    """Ln merged code per engineer = kappa (ln m - ln m(t0)) + level."""
    mu = kappa * (read.at("log_m") - read.start("log_m")) + code_level
    return Reported(mu, np.full(len(y.low), 0.35), read.disclosed)


@indicator("overall_acceleration", family="pace", prepare=obs.logs)
def overall_pace(read: Reading, y: Observed) -> Law:
    """Ln stated acceleration ~ N(ln W, .2): the overall pace, not output per researcher."""
    return Reported(read.at("log_W"), np.full(len(y.low), 0.2), read.disclosed)


@indicator("aeci_slope_ratio", family="pace", prepare=obs.logs)
def index_slope_ratio(read: Reading, y: Observed, *, c1: Array, J: Array) -> Law:
    """Ln ratio of the index gain of the last year to that of the year before, a jump J in the last."""
    now, before, earlier = (read.at("e", lag=lag) for lag in (0.0, 1.0, 2.0))
    return Reported(
        array_module(now).log((now - before + J / c1) / (before - earlier)),
        np.full(len(y.low), 0.3),
        read.disclosed,
    )


@indicator("int_ext_gap_days", family="internal gap", prepare=obs.days)
def internal_gap(read: Reading, y: Observed, *, release_gap: Array) -> Law:
    """Ln years from internal use to announcement ~ N(ln release_gap, .5)."""
    return Reported(
        array_module(release_gap).log(release_gap) + np.zeros(len(y.low)),
        np.full(len(y.low), 0.5),
        read.disclosed,
    )


@indicator("headcount", family="staff and spending", prepare=obs.logs)
def headcount(
    read: Reading,
    y: Observed,
    *,
    gL: Array,
    staff_openai: Annotated[
        Array, param(Normal(7.0, 1.0), "ln people", "calibration", "ln OpenAI staff at 2025.0")
    ],
    staff_anthropic: Annotated[
        Array,
        param(Normal(7.0, 1.0), "ln people", "calibration", "ln Anthropic staff at 2025.0"),
    ],
) -> Law:
    """Ln staff = level + gL (t - 2025)."""
    years = read.rows["time"].to_numpy(float) - 2025.0
    level = staff_openai * _flag(read, "OpenAI") + staff_anthropic * _flag(read, "Anthropic")
    return Reported(level + gL * years, np.full(len(y.low), 0.15), read.disclosed)


@indicator("rnd_compute_spend", family="staff and spending", prepare=obs.logs)
def compute_spending(
    read: Reading,
    y: Observed,
    *,
    gK1: Array,
    spend_openai: Annotated[
        Array,
        param(Normal(1.6, 1.0), "ln bn USD/yr", "calibration", "ln OpenAI R&D compute spending at 2025.0"),
    ],
    price_fall: Annotated[
        Array,
        param(
            Normal(0.35, 0.1),
            "nats/yr",
            "calibration",
            "fall of the price of compute",
            "Epoch AI: 30-40 % a year",
            _EPOCH,
        ),
    ],
) -> Law:
    """Ln spending = level + compute growth less the fall of its price; one row fixes the level only."""
    years = read.rows["time"].to_numpy(float) - 2025.0
    return Reported(
        spend_openai + read.at("k") - 2.0 * gK1 - price_fall * years, np.full(len(y.low), 0.2), read.disclosed
    )


@indicator("software_growth", family="software growth", prepare=obs.points)
def software_growth(read: Reading, y: Observed) -> Law:
    """(ln(s'/P) at 2025.75 - ln(s'/P) at 2023)/2.75 ~ N(0, .2): growth without AI roughly constant."""
    log = array_module(read.d50).log
    now = log(read.at("ds")) - read.at("log_P")
    return Reported(
        (now - log(read.start("ds")) + read.start("log_P")) / 2.75, y.se_low, np.zeros(len(y.low))
    )


@indicator("dropin_yes_share", family="impressions", prepare=obs.counts)
def dropin_researcher(
    read: Reading,
    y: Observed,
    *,
    g2: Array,
    g3: Array,
    g4: Array,
    camp: Annotated[
        Array, param(Normal(0.0, 1.0), "probit", "measurement", "how easily this staff says yes")
    ],
) -> Law:
    """Staff saying a model is a drop-in researcher ~ Binomial(n, Phi(eD - d3 + camp))."""
    return Counted(read.at("eD") - rung_places(read.d50, g2, g3, g4)[2] + camp)


# Nobody publishes these yet: their rows are hypothetical, or of the future -----------------------------

UNPUBLISHED = frozenset(
    {
        *("human_time_share", "frozen_basket_share", "audited_productivity", "audited_pace"),
        *("compute_growth", "algorithmic_growth", *IDEATION, *STRATEGY),
    }
)
"""Indicators without a row in the archive."""


@indicator("human_time_share", family="task shares", prepare=obs.shares)
def human_share(
    read: Reading,
    y: Observed,
    *,
    time_offset: Annotated[
        Array,
        param(Normal(0.0, 0.3), "logit", "measurement", "human working time against required tasks"),
    ],
) -> Law:
    """Logit of the human share of working time on current research = logit H + offset."""
    xp = array_module(read.d50)
    log_H = xp.minimum(read.at("log_H"), -1e-9)
    mu = log_H - xp.log(-xp.expm1(log_H)) + time_offset
    return Reported(mu, obs.combined_sd(y, 0.15), read.disclosed)


@indicator("frozen_basket_share", family="task shares", prepare=obs.shares)
def frozen_basket(read: Reading, y: Observed) -> Law:
    """Logit of the share of the R&D tasks of January 2023 that AI does = logit F."""
    return Reported(read.at("logit_F"), obs.combined_sd(y, 0.15), read.disclosed)


@indicator("audited_productivity", family="audits", prepare=obs.logs)
def audited_output(read: Reading, y: Observed) -> Law:
    """Ln audited output per researcher over the same researchers with no AI = ln m."""
    return Reported(read.at("log_m"), obs.combined_sd(y, 0.1), read.disclosed)


@indicator("audited_pace", family="audits", prepare=obs.logs)
def audited_acceleration(read: Reading, y: Observed) -> Law:
    """Ln audited overall pace over that with no AI = ln W."""
    return Reported(read.at("log_W"), obs.combined_sd(y, 0.1), read.disclosed)


@indicator("compute_growth", family="growth rates", prepare=obs.logs)
def growth_of_compute(read: Reading, y: Observed) -> Law:
    """Ln factor by which research compute grew in a year = k(t) - k(t - 1)."""
    return Reported(read.at("k") - read.at("k", lag=1.0), obs.combined_sd(y, 0.1), read.disclosed)


@indicator("algorithmic_growth", family="growth rates", prepare=obs.logs)
def growth_of_software(read: Reading, y: Observed) -> Law:
    """Ln factor by which software efficiency grew in a year = s(t) - s(t - 1)."""
    return Reported(read.at("s") - read.at("s", lag=1.0), obs.combined_sd(y, 0.2), read.disclosed)


# All of them --------------------------------------------------------------------------------------------


def prepared(rows: pd.DataFrame) -> Observed:
    """All rows of `selection.in_order` as observations, (row,) each."""
    each = [INDICATORS[n].prepare(rows[rows["indicator"] == n]) for n in dict.fromkeys(rows["indicator"])]
    return Observed(*map(np.concatenate, zip(*each, strict=True)))
