"""The report page says what the result holds: numbers, verdicts, settings, where it came from."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from neuropil.bench import Failure
from neuropil.bench.report import write_report
from neuropil.bench.report.page import PALETTE, arm_colours
from neuropil.bench.report.strip import PAD, WIDTH, forest, strips
from neuropil.bench.report.summary import MINUS, amount, duration, estimate, headline, number, quantity
from neuropil.errors import ConfigError
from tests.bench.report_example import STUDY, example

PRIMARY = STUDY.claims[0]


class Page(HTMLParser):
    """What a reader sees, without scripts and styles, and every attribute with its tag."""

    def __init__(self, text):
        super().__init__()
        self.words, self.attributes, self.ids, self._hidden = [], [], [], 0
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self._hidden += tag in ("script", "style")
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = write_report(STUDY, example(), tmp_path_factory.mktemp("report") / "deep" / "hlop.html")
    return Page(path.read_text("utf-8"))


def written(tmp_path, study, result):
    # Pages of a site are small.
    return Page(write_report(study, result, tmp_path / "page.html", site="..").read_text("utf-8"))


def test_sections_come_in_order(page):
    order = ("claims", "metrics", "figures", "cost", "settings", "provenance", "notes", "citation")
    assert [name for name in page.ids if name in order] == list(order)


def test_nothing_is_loaded_from_elsewhere(page):
    addresses = [
        value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")
    ]
    assert all(value.startswith(("#", "data:")) for value in addresses), addresses
    policy = next(value for _, _, value in page.attributes if value and value.startswith("default-src"))
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy


def test_every_claim_stands_with_its_verdict_value_and_interval(page):
    for judgement in example().judgements:
        assert judgement.claim.text in page.text
        assert judgement.verdict in page.text
        low, high = (
            amount(judgement.claim, edge, unit=False) for edge in (judgement.ci_low, judgement.ci_high)
        )
        assert f"{amount(judgement.claim, judgement.value)} 95 % interval {low} to {high}" in page.text


def test_every_seed_of_every_metric_is_printed(page):
    run = example()
    for arm in run.arms:
        for metric in ("acc", "bwt", "fwt"):
            seeds = " ".join(number(value, metric, unit=False) for value in run.metric(arm, metric))
            assert seeds in page.text, (arm, metric)


def test_published_numbers_stand_beside_ours(page):
    assert "paper 95.2 %" in page.text
    assert f"paper {MINUS}1.3 %" in page.text


def test_settings_mark_what_tuning_chose(page):
    assert re.search(r"lr 0\.1 tuned 0\.1 0\.1 0\.1 0\.05 tuned 0\.1", page.text)
    assert "Tuning: 16 trials" in page.text
    assert "neuropil run hlop --scale laptop --seeds 0,1,2,3,4" in page.text


def test_a_subset_of_arms_at_smoke_scale_is_not_judged(tmp_path):
    seen = written(tmp_path, STUDY, example(("hlop", "gpm"), (0,), "smoke"))
    assert "finetune, which the claim needs, is not in this run" in seen.text
    assert "not judged" in seen.text
    assert "holds" not in seen.text.replace("A claim holds when", "")
    assert "--arms hlop,gpm" in seen.text
    whole = written(tmp_path, STUDY, example(scale="smoke"))
    assert "not judged at smoke scale" in whole.text


def test_failures_and_missing_values_are_told(tmp_path):
    run = example(("hlop", "finetune"), (0, 1))
    cut = replace(
        run,
        trials=(replace(run.trials[0], metrics={"acc": None}), *run.trials[1:3]),
        failures=(Failure("finetune", 1, "loss is not finite at step 3"),),
        judgements=(),
    )
    seen = written(tmp_path, STUDY, cut)
    assert "1 trial failed" in seen.text
    assert "finetune, seed 1: loss is not finite at step 3" in seen.text


def test_an_empty_run_is_still_a_page(tmp_path):
    empty = replace(example(("hlop",), (0,)), trials=(), judgements=(), tuning={}, provenance={})
    assert "hlop" in written(tmp_path, replace(STUDY, notes=""), empty).text


def test_overrides_are_in_the_command_quoted_for_the_shell(tmp_path):
    run = replace(example(("hlop",), (0,)), overrides={"dataset": "a b; rm"})
    assert "--set 'dataset=a b; rm'" in written(tmp_path, STUDY, run).text


def test_a_foreign_result_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="study 'hlop' cannot report a result of 'gpm'"):
        write_report(STUDY, replace(example(("hlop",), (0,)), id="gpm"), tmp_path / "x.html")


def test_a_directory_gets_a_file_named_after_the_study(tmp_path):
    assert write_report(STUDY, example(("hlop",), (0,)), tmp_path, site="..") == tmp_path / "hlop.html"


def test_an_arm_keeps_its_colour_whichever_arms_run():
    whole, part = arm_colours(STUDY, example()), arm_colours(STUDY, example(("gpm",), (0,)))
    assert part == whole
    assert len(set(whole.values())) == len(whole)


def linear(colour):
    encoded = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def contrast(*colours):
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in colours)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", PALETTE)
@pytest.mark.parametrize("background", ["#fcfbf8", "#15181c"])
def test_arms_can_be_seen_on_both_backgrounds(colour, background):
    assert contrast(colour, background) >= 2.4


# Linear RGB as seen without red and without green cones: Machado, Oliveira and Fernandes, 2009, severity 1.
SEEN = {
    "all cones": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.mark.parametrize("eyes", SEEN)
def test_arms_stay_apart_for_every_pair_of_eyes(eyes):
    seen = np.clip(np.array([linear(colour) for colour in PALETTE]) @ np.transpose(SEEN[eyes]), 0, 1)
    cones = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    axes = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    oklab = np.cbrt(seen @ np.transpose(cones)) @ np.transpose(axes)
    apart = np.linalg.norm(oklab[:, None] - oklab[None], axis=-1)
    assert apart[~np.eye(len(PALETTE), dtype=bool)].min() >= 0.1


def test_estimate_is_the_t_interval():
    values = [0.81, 0.79, 0.86, 0.8]
    mean, half, seeds = estimate([*values, None])
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert seeds[-1] is None
    assert estimate([None, 0.5])[:2] == (0.5, None)
    assert estimate([])[:2] == (None, None)


def test_headline_tells_the_primary_claim_in_plain_words():
    def told(verdict, scale="laptop"):
        run = example(("hlop", "finetune"), (0, 1), scale)
        return headline(replace(run, judgements=(replace(run.judgements[0], verdict=verdict),)), PRIMARY)

    assert re.fullmatch(r"hlop forgets 3\.\d points, finetune 1\d\.\d: the claim holds", told("holds"))
    assert told("fails").endswith("the claim fails")
    assert told("undecided").endswith("these seeds cannot decide the claim")
    assert told(None, "smoke").endswith("not judged at smoke scale")
    level = replace(STUDY.claims[3], primary=True)
    assert headline(example(("hlop",)), level).startswith("hlop reaches 86.4 % average accuracy")


def test_a_difference_of_fractions_is_in_points_and_a_level_in_percent():
    assert amount(PRIMARY, 0.0512) == "5.1 points"
    assert amount(STUDY.claims[3], 0.9) == "90.0 %"
    assert amount(PRIMARY, None) == "-"
    assert quantity(PRIMARY) == f"hlop.bwt {MINUS} finetune.bwt"
    assert number(-0.0001, "bwt") == "0.0 %"
    assert number(-12.5) == f"{MINUS}12.5"
    assert number(99999.0) == "100 k"
    assert duration(59.99) == "1 min 0 s"


def test_forest_places_values_in_order_inside_the_drawing():
    judgement = example().judgements[0]
    drawn = forest(judgement, example().seeds)
    inside = [drawn.zero, drawn.margins[0].x, drawn.low, drawn.mean, drawn.high]
    assert inside == sorted(inside)
    assert all(PAD <= x <= WIDTH - PAD for x in (*inside, *(mark.x for mark in drawn.seeds)))
    assert drawn.zone == (drawn.margins[0].x, WIDTH)
    both = forest(example().judgements[2], example().seeds)
    assert both.zone == (both.margins[0].x, both.margins[1].x)


def test_strips_share_one_scale_and_survive_missing_seeds():
    one, two, none = strips(
        [estimate([0.0, 1.0]), estimate([0.5, None]), estimate([None, None])], (0, 1), "acc"
    )
    assert one.mean == two.mean == WIDTH / 2
    assert len(two.seeds) == 1
    assert (none.mean, none.seeds) == (None, ())
